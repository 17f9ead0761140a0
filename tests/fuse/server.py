"""A FUSE file system that shows a fixture tree, with latency and errno under control; run as a program.

``python server.py TREE RULES MOUNTPOINT``. RULES is a JSON file, read anew whenever it was replaced: pattern of the
path in the tree (fnmatch) → ``delay_s``, ``errno`` (its name), ``text`` (instead of the file's). The first that fits
counts. As in sysfs, files look 4096 bytes long, nothing is cached, and an open file gives a fresh value at each read.
"""

from __future__ import annotations

import errno
import fnmatch
import json
import stat
import sys
import time
from pathlib import Path

import mfusepy


class Mirror(mfusepy.Operations):
    use_ns = True

    def __init__(self, tree: str, rules: str) -> None:
        self._tree, self._rules_file = Path(tree), Path(rules)
        self._seen = -1
        self._rules: dict[str, dict] = {}

    def _real(self, path: str) -> Path:
        return self._tree / path.lstrip("/")

    def _rule(self, path: str) -> dict:
        # The inode, for a rename replaces it, and two within one tick of the clock have one time.
        here = self._rules_file.stat().st_ino
        if here != self._seen:
            self._seen, self._rules = here, json.loads(self._rules_file.read_text())
        return next((rule for pattern, rule in self._rules.items() if fnmatch.fnmatch(path.lstrip("/"), pattern)), {})

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        try:
            found = self._real(path).lstat()
        except OSError as error:
            raise mfusepy.FuseOSError(error.errno) from None
        size = 4096 if stat.S_ISREG(found.st_mode) else found.st_size
        return {"st_mode": found.st_mode, "st_nlink": found.st_nlink, "st_size": size, "st_ino": found.st_ino}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *(entry.name for entry in self._real(path).iterdir())]

    def readlink(self, path: str) -> str:
        return str(self._real(path).readlink())

    def open(self, path: str, flags: int) -> int:
        if self._rule(path).get("errno") == "ENOENT":
            raise mfusepy.FuseOSError(errno.ENOENT)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        rule = self._rule(path)
        time.sleep(rule.get("delay_s", 0.0))
        if "errno" in rule:
            raise mfusepy.FuseOSError(getattr(errno, rule["errno"]))
        text = rule["text"].encode() if "text" in rule else self._real(path).read_bytes()
        return text[offset : offset + size]


if __name__ == "__main__":
    tree, rules, mountpoint = sys.argv[1:]
    mfusepy.FUSE(Mirror(tree, rules), mountpoint, foreground=True, direct_io=True, attr_timeout=0, entry_timeout=0)

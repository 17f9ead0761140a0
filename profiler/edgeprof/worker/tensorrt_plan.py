"""Read the header of a TensorRT plan without TensorRT: which version built it, and for which GPU.

Python 3.6 grammar: the worker reads it too. There is no published description of the layout. The one here was found in
plans of TensorRT 10 (a published one of 10.0.1.6, whose length field, version and GPU agree with one another); a header
that does not look exactly so is reported as unknown.
"""

import re
import struct
from typing import NamedTuple, Optional, Tuple

#: The first bytes of a plan; the second form was seen in plans of TensorRT 5 and 6.
MAGIC = (b"ftrt", b"ptrt")
#: Magic, 0, header version 1, 0, length of the whole plan, major, minor, patch, build.
_HEADER = struct.Struct("<4sIIIQ4B")
#: How the GPU of the builder is written: tagged fields, with its compute capability first.
_GPU = re.compile(
    b"\x12\x80\x01\x00\x10\x80\x01\x00\x07\x80\x01\x00(....)\x07\x80\x01\x00(....)\x07\x80\x01\x00", re.DOTALL
)

Plan = NamedTuple(
    "Plan",
    [
        ("version", Optional[str]),  # "10.0.1.6"; None if the header does not say
        ("size", Optional[int]),  # bytes that the plan says it has
        ("compute", Optional[str]),  # "7.5", the compute capability that it was built for
        ("offset", int),  # where the plan begins in the file (Ultralytics writes its metadata before it)
    ],
)


def read_plan(path: str) -> Optional[Plan]:
    """Read the header of a plan; None if the file is no plan.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(8192)
        start = _plan_start(head)
        if start:
            file.seek(start)
            head = file.read(8192)
    if head[:4] not in MAGIC:
        return None
    version, size = _read_version(head)
    compute = _read_gpu(head) if version else None
    return Plan(version, size, compute, start)


def _plan_start(head: bytes) -> int:
    """Where the plan begins: 0, or after Ultralytics' metadata (a length and as many bytes of JSON)."""
    if head[4:5] != b"{":
        return 0
    start = 4 + int(struct.unpack("<I", head[:4])[0])
    return start if start < (1 << 24) else 0


def _read_version(head: bytes) -> Tuple[Optional[str], Optional[int]]:
    if len(head) < _HEADER.size:
        return None, None
    _, zero, constant_one, other, size, major, minor, patch, build = _HEADER.unpack_from(head)
    if (zero, constant_one, other) != (0, 1, 0) or not 8 <= major <= 20 or not 64 <= size < 1 << 40:
        return None, None
    return "{}.{}.{}.{}".format(major, minor, patch, build), size


def _read_gpu(head: bytes) -> Optional[str]:
    match = _GPU.search(head)
    if match is None:
        return None
    major, minor = (int(struct.unpack("<I", part)[0]) for part in match.groups())
    return "{}.{}".format(major, minor) if 5 <= major <= 20 and minor <= 9 else None


def describe_plan(plan: Plan) -> str:
    """Describe a plan: ``built by TensorRT 10.0.1.6 for a GPU of compute capability 7.5``."""
    if plan.version is None:
        return "its header does not say which TensorRT built it"
    text = "built by TensorRT " + plan.version
    return text + " for a GPU of compute capability " + plan.compute if plan.compute else text

"""The processor that a variant is made for: this machine's or another device's.

How weights must be rounded depends on the processor's 8-bit arithmetic. An x86 processor without VNNI adds two products
of an unsigned and a signed byte in 16 bits (VPMADDUBSW), and the sum may saturate: 255 · 127 · 2 = 64,770 > 32,767.
With 7-bit weights it cannot: 255 · 64 · 2 = 32,640. Arm's kernels widen the products before they add them.
"""

from __future__ import annotations

import contextlib
import platform
import re
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprof.errors import InputError, unknown
from edgeprof.roots import Roots

if TYPE_CHECKING:
    from collections.abc import Iterator

#: 8-bit dot products, the best first, as /proc/cpuinfo names them.
DOT_PRODUCTS = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")

#: Processor → architecture and its best 8-bit dot product ("" for none). Arm: the cores' technical reference manuals
#: (FEAT_DotProd, FEAT_I8MM); x86: the psABI's levels and the makers' instruction set references.
_PROCESSORS = {
    "x86-64-v2": ("x86", ""),
    "x86-64-v3": ("x86", ""),
    "x86-64-v4": ("x86", ""),
    "avx2": ("x86", ""),
    "haswell": ("x86", ""),
    "skylake": ("x86", ""),
    "zen2": ("x86", ""),
    "zen3": ("x86", ""),
    "avx-vnni": ("x86", "avx_vnni"),
    "alder-lake": ("x86", "avx_vnni"),
    "avx512-vnni": ("x86", "avx512_vnni"),
    "ice-lake": ("x86", "avx512_vnni"),
    "zen4": ("x86", "avx512_vnni"),
    "zen5": ("x86", "avx512_vnni"),
    "sapphire-rapids": ("x86", "amx_int8"),
    "armv8": ("arm", ""),
    "armv8-dotprod": ("arm", "asimddp"),
    "armv8-i8mm": ("arm", "i8mm"),
    "cortex-a35": ("arm", ""),
    "cortex-a53": ("arm", ""),
    "cortex-a55": ("arm", "asimddp"),
    "cortex-a57": ("arm", ""),
    "cortex-a72": ("arm", ""),
    "cortex-a73": ("arm", ""),
    "carmel": ("arm", ""),
    "cortex-a76": ("arm", "asimddp"),
    "cortex-a78": ("arm", "asimddp"),
    "cortex-a78ae": ("arm", "asimddp"),
    "neoverse-n1": ("arm", "asimddp"),
    "neoverse-v3ae": ("arm", "i8mm"),
}
#: Board → its processor.
_BOARDS = {
    "raspberry-pi-3": "cortex-a53",
    "raspberry-pi-4": "cortex-a72",
    "raspberry-pi-5": "cortex-a76",
    "jetson-nano": "cortex-a57",
    "jetson-tx1": "cortex-a57",
    "jetson-tx2": "cortex-a57",
    "jetson-xavier-nx": "carmel",
    "jetson-agx-xavier": "carmel",
    "jetson-orin-nano": "cortex-a78ae",
    "jetson-orin-nx": "cortex-a78ae",
    "jetson-agx-orin": "cortex-a78ae",
    "jetson-thor": "neoverse-v3ae",
}


@dataclass(frozen=True)
class Target:
    """A processor.

    Attributes:
        name: The name that the user gave, or ``this machine``.
        architecture: ``x86`` or ``arm``.
        dot_product: Its best 8-bit dot product, as /proc/cpuinfo names it; "" for none, None if unknown.
    """

    name: str
    architecture: str
    dot_product: str | None

    @property
    def saturates(self) -> bool:
        """Whether sums of two 8-bit products may saturate in its kernels; True if an x86's features are unknown."""
        return self.architecture == "x86" and not self.dot_product

    def to_dict(self) -> dict[str, Any]:
        """Return the target for the variant's provenance, without its name, so that equal processors share variants."""
        return {"architecture": self.architecture, "dot_product": self.dot_product}


_CURRENT: ContextVar[Target | None] = ContextVar("edgeprof_compression_target", default=None)


def current_target() -> Target:
    """Return the processor that variants are made for; this machine's unless the user named another."""
    return _CURRENT.get() or this_machine(Roots.resolve())


@contextlib.contextmanager
def making_for(target: Target) -> Iterator[None]:
    """Within this context, ``current_target`` returns the given target."""
    token = _CURRENT.set(target)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def find_target(text: str | None, roots: Roots) -> Target:
    """Return the processor that ``--target`` names: a board, a processor, or a copy of a /proc/cpuinfo.

    Raises:
        InputError: There is no such target; the remedy names the nearest.
    """
    if not text:
        return this_machine(roots)
    name = text.lower().replace("_", "-")
    processor = _BOARDS.get(name, name)
    if processor in _PROCESSORS:
        architecture, dot_product = _PROCESSORS[processor]
        return Target(text, architecture, dot_product)
    path = Path(text)
    if not path.is_file():
        raise unknown("target", text, [*_BOARDS, *_PROCESSORS])
    detected = _from_cpuinfo(text, path)
    if detected.dot_product is None:
        raise InputError(
            f"{text} does not list a processor's features", remedy="Give a copy of the device's /proc/cpuinfo."
        )
    return detected


def this_machine(roots: Roots) -> Target:
    """Return the processor that /proc/cpuinfo describes."""
    return _from_cpuinfo("this machine", roots.procfs / "cpuinfo")


def native_architecture() -> str:
    """Return the architecture whose quantisation rules fit this machine's kernels: ``arm`` or ``x86``."""
    return "arm" if platform.machine().lower().startswith(("aarch64", "arm")) else "x86"


def _from_cpuinfo(name: str, path: Path) -> Target:
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        text = ""
    features = re.search(r"^(flags|Features)\s*:(.*)$", text, re.MULTILINE)
    if features is None:
        return Target(name, native_architecture(), None)
    flags = set(features[2].split())
    dot_product = next((flag for flag in DOT_PRODUCTS if flag in flags), "")
    return Target(name, "x86" if features[1] == "flags" else "arm", dot_product)

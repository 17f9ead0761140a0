"""Damaged and hostile files made of whole ones: of their bytes, and of what their format means.

Every case comes from a seed, so that a case that failed is made again by its number.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    Mutation = Callable[[bytes, random.Random], bytes]

#: Numbers at which readers break: of lengths, counts and offsets.
INTEGERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
#: Texts that are no harmless names.
TEXTS = ("", "\0", "\x1b]0;x\x07", "../../etc/passwd", "=1+1", "\ud83d", "a" * 70_000, "%s%n", "{x}", "1e999", "nan")
#: Values of JSON and TOML at which arithmetic and conversions break.
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, -1e308, 5e-324, 1e-300, 2**63, 2**64, 10**400, [], {}, [[]], *TEXTS[:-3],
)  # fmt: skip


def of_bytes(data: bytes, chance: random.Random) -> bytes:
    """Some bytes flipped, cut, repeated or overwritten by a number of an interesting size."""
    content = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        if not content:
            return bytes(content)
        at = chance.randrange(len(content))
        kind = chance.randrange(6)
        if kind == 0:
            content[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del content[at : at + chance.choice((1, 4, 64, len(content)))]
        elif kind == 2:
            block = content[at : at + chance.choice((1, 8, 256))]
            content[at:at] = block * chance.choice((1, 2, 50))
        elif kind == 3:
            number = struct.pack("<I", chance.choice(INTEGERS))
            content[at : at + 4] = number[: len(content) - at]
        elif kind == 4:
            other = chance.randrange(len(content))
            content[at : at + 16] = content[other : other + 16]
        else:
            content[at : at + 1] = bytes([chance.randrange(256)])
    return bytes(content)


def of_zip(data: bytes, chance: random.Random) -> bytes:
    """One entry changed, renamed, repeated or compressed, in an archive whose sums are right all the same."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError, RuntimeError):
        return of_bytes(data, chance)
    if not entries or chance.random() < 0.3:
        return of_bytes(data, chance)
    at = chance.randrange(len(entries))
    name, content = entries[at]
    kind = chance.randrange(6)
    if kind == 0:
        inner = of_json if name.endswith(".json") else of_pickle if name.endswith(".pkl") else of_bytes
        entries[at] = (name, inner(content, chance))
    elif kind == 1:
        prefix = name.rpartition("/")[0]
        entries[at] = (f"{prefix}/{chance.choice(TEXTS)}".encode("utf-8", "replace").decode()[:60_000], content)
    elif kind == 2:
        entries.append((chance.choice((name, name.upper())), of_bytes(content, chance)))
    elif kind == 3:
        del entries[at]
    elif kind == 4:
        entries[at] = (name, bytes(chance.choice((0, 1, 1 << 20, 4 << 20))))
    else:
        chance.shuffle(entries)
    packed = io.BytesIO()
    method = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    import warnings

    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", method) as archive:
        warnings.simplefilter("ignore")  # an entry that is there twice is meant
        for entry, value in entries:
            archive.writestr(entry, value)
    return packed.getvalue()


def of_pickle(data: bytes, chance: random.Random) -> bytes:
    """Opcodes put in: imports by name and by number, memo, long texts, deep nesting."""
    pieces = (
        b"cos\nsystem\n", b"\x8c\x02os\x8c\x06system\x93", b"\x82\x01", b"h\x00", b"\x94", b"(" * 500, b"]" * 500,
        b"N0" * 1000, b"\x8d" + struct.pack("<Q", 1 << 40), b"\x8e" + struct.pack("<Q", 1 << 62), b"R", b"b", b"\x81",
        b"I999999999999999999999\n", b"L1L\n", b"V\\ud800\n", b"\x95" + struct.pack("<Q", 1 << 63),
        b"j\xff\xff\xff\xff",
    )  # fmt: skip
    content = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(content) + 1)
        content[at:at] = chance.choice(pieces)
    return of_bytes(bytes(content), chance) if chance.random() < 0.3 else bytes(content)


def of_protobuf(data: bytes, chance: random.Random) -> bytes:
    """Fields of the outer messages repeated, left out, nested, or given another length or type."""
    at = 0
    fields: list[bytes] = []
    while at < len(data):
        start = at
        tag, at = _varint(data, at)
        if tag & 7 == 2:
            length, at = _varint(data, at)
            at += length
        elif tag & 7 == 0:
            _, at = _varint(data, at)
        else:
            at += 8 if tag & 7 == 1 else 4
        fields.append(data[start:at])
        if len(fields) > 500:
            break
    if not fields:
        return of_bytes(data, chance)
    at = chance.randrange(len(fields))
    kind = chance.randrange(5)
    if kind == 0:
        fields[at] = of_bytes(fields[at], chance)
    elif kind == 1:
        fields[at:at] = [fields[at]] * chance.choice((1, 3, 300))
    elif kind == 2:
        fields[at] = fields[at][:1] + _to_varint(chance.choice((*INTEGERS, 1 << 40, (1 << 64) - 1))) + fields[at][2:]
    elif kind == 3:
        inner = fields[at]
        for _ in range(chance.choice((2, 20, 200))):
            inner = b"\x3a" + _to_varint(len(inner)) + inner
        fields[at] = inner
    else:
        fields[at] = bytes([chance.randrange(256)]) + fields[at][1:]
    return b"".join(fields) + data[sum(map(len, fields)) :][: 0 if kind else None]


def of_flatbuffer(data: bytes, chance: random.Random) -> bytes:
    """Offsets, counts and table sizes, which lie at multiples of four (of two), given other numbers."""
    content = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        if len(content) < 16:
            return bytes(content)
        if chance.random() < 0.6:
            at = 4 * chance.randrange(min(len(content), 4096) // 4)
            old = struct.unpack_from("<I", content, at)[0]
            new = chance.choice((*INTEGERS, old + 4, old - 4, old * 2, len(content), at, 0x100000000 - at))
            struct.pack_into("<I", content, at, new & 0xFFFFFFFF)
        else:
            at = 2 * chance.randrange(len(content) // 2 - 1)
            struct.pack_into("<H", content, at, chance.choice(INTEGERS) & 0xFFFF)
    return of_bytes(bytes(content), chance) if chance.random() < 0.2 else bytes(content)


def of_json(data: bytes, chance: random.Random) -> bytes:
    """Values replaced by extreme ones, keys left out, objects nested; sometimes only bytes."""
    if chance.random() < 0.2:
        return of_bytes(data, chance)
    try:
        document = json.loads(data)
    except ValueError:
        return of_bytes(data, chance)
    for _ in range(chance.choice((1, 1, 2, 5))):
        places = _places(document)
        if not places:
            break
        owner, key = chance.choice(places)
        kind = chance.randrange(4)
        if kind == 0 and isinstance(owner, dict):
            del owner[key]
        elif kind == 1:
            owner[key] = [owner[key]] * chance.choice((2, 20))
        else:
            owner[key] = copy.deepcopy(chance.choice(VALUES))  # lists among them are changed in their turn
    text = json.dumps(document)
    if chance.random() < 0.02:
        text = text.replace("null", "[" * 20_000 + "]" * 20_000, 1)
    return text.encode("utf-8", "surrogatepass")


def of_toml(data: bytes, chance: random.Random) -> bytes:
    """Values of lines replaced, lines repeated or left out, arrays nested."""
    lines = data.decode("utf-8", "replace").splitlines()
    for _ in range(chance.choice((1, 1, 2, 4))):
        if not lines:
            break
        at = chance.randrange(len(lines))
        key, equals, _ = lines[at].partition("=")
        kind = chance.randrange(5)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(at, chance.choice(lines))
        elif kind == 2 and chance.random() < 0.1:
            lines[at] = f"{key}= " + "[" * 5000 + "]" * 5000
        elif equals:
            value = chance.choice(VALUES)
            written = "{ from = 1, to = 1e9, steps = 1000000000 }" if value is None else json.dumps(value)
            lines[at] = f"{key}= {written}"
    text = "\n".join(lines).encode("utf-8", "replace")
    return of_bytes(text, chance) if chance.random() < 0.3 else text


def of_lines(data: bytes, chance: random.Random) -> bytes:
    """Cells of lines replaced, lines repeated or left out."""
    lines = data.decode("utf-8", "replace").splitlines()
    for _ in range(chance.choice((1, 1, 2, 5))):
        if not lines:
            break
        at = chance.randrange(len(lines))
        separator = next((one for one in (",", ";", "\t", " ") if one in lines[at]), ",")
        cells = lines[at].split(separator)
        kind = chance.randrange(5)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(at, chance.choice(lines))
        else:
            cells[chance.randrange(len(cells))] = str(chance.choice((*VALUES, "9" * 5000, "x" * 200_000, '"')))
            lines[at] = separator.join(cells)
    text = "\n".join(lines).encode("utf-8", "replace")
    return of_bytes(text, chance) if chance.random() < 0.2 else text


def _places(document: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        one = waiting.pop()
        inner = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        for key, value in inner:
            found.append((one, key))
            waiting.append(value)
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            break
        shift += 7
    return value, at


def _to_varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])

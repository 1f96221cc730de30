"""Spoil a small good file: bytes anywhere, or a part of what its format is made of, so that faults lie deep.

`spoilt` is a pure function of the bytes and of the state of `chance`.
"""

from __future__ import annotations

import io
import json
import random
import re
import sqlite3
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

# What readers fall over more often than over chance. Names of files outside are in OUTSIDE.
WORDS: tuple[bytes, ...] = (
    *(b"-1", b"0", b"1e999", b"-1e308", b"5e-324", b"nan", b"NaN", b"Infinity", b"99999999999999999999"),
    *(b"1_0", b"null", b"true", b"[]", b"{}", b'""', b"'", b'"', b",", b";", b"\t", b"\n", b"\r", b"\0"),
    *(b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x80"),
    *(b"\xfe\xff", b"\xc3", b"\xed\xb2\x80", b"\x1b[2J", b"<", b">", b"&", b"&e;", b"<!--", b"]]>"),
    *(b"<!DOCTYPE a [<!ENTITY e 'e'>]>", b"[[[[[[[[", b"../", b"%s%n", b"EMPTY", b"=1+1", b"16777216"),
)
# A file and an address that nobody may read: the harness watches both.
SECRET = "../outside/secret"
PORT = 47311
OUTSIDE: tuple[bytes, ...] = tuple(
    text.encode()
    for text in (
        f"{SECRET}.tif",
        f"{SECRET}.csv",
        f"../../fuzz/{SECRET}.tif",
        f"file:{SECRET}.csv",
        f"http://127.0.0.1:{PORT}/x.tif",
        f"/vsicurl/http://127.0.0.1:{PORT}/x.tif",
        f"<VRTDataset rasterXSize='9' rasterYSize='9'><VRTRasterBand band='1'><SimpleSource><SourceFilename>"
        f"{SECRET}.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>",
        "/etc/passwd",
    )
)
# In the place of any value of JSON; the long ones are of kinds that recursion and conversion fall over.
NODES: tuple[str, ...] = (
    *("null", "true", "false", "0", "-1", "1", "0.5", "-0.0", "1e999", "-1e999", "NaN", "1e308", "1e-320"),
    *(
        "2147483648",
        "9223372036854775808",
        "1" + "0" * 400,
        "9" * 5000,
        '""',
        '"a"',
        '"\\ud800"',
        '"\\u0000"',
    ),
    *('"\\u001b[2Jx\\n"', '"=1+1"', "[]", "[[]]", "[null]", "{}", '{"":{}}', '{"a":[1,2,{"b":null}]}', '"1"'),
    *("[" * 3000 + "]" * 3000, '{"a":' * 1200 + "1" + "}" * 1200, "[0,0,0,0,0,0,0,0,0]", "4096", "65537"),
    *('["a","a"]', "[1e999]", "[-1,-1]", "[1,2,3,4]", '"' + "x" * 20_000 + '"', "1e8", "1e-8", "[1,2]", "3"),
    *(f'"{text.decode()}"' for text in OUTSIDE if b"<" not in text),
)
EXTREMES: tuple[int, ...] = (
    0,
    1,
    2,
    3,
    7,
    8,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
)
EXTREMES += (0xFFFFFFFE, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


_TOO_SPOILT: tuple[type[Exception], ...] = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    OverflowError,
    struct.error,
)
_TOO_SPOILT += (EOFError, sqlite3.Error, zipfile.BadZipFile, zlib.error, NotImplementedError)


def spoilt(data: bytes, chance: random.Random, donors: Sequence[bytes] = ()) -> bytes:
    """`data` with one to five faults, at least one.

    donors : other good files, of which pieces may be put in.
    """
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
        known = next((change for fits, change in _FORMATS if fits(data)), None)
        if known is not None and chance.random() < 0.6:
            try:
                data = known(data, chance)
                continue
            except _TOO_SPOILT:
                pass
        data = _anywhere(data, chance, donors)
    return data


def _anywhere(data: bytes, chance: random.Random, donors: Sequence[bytes]) -> bytes:
    start, length = chance.randrange(len(data) + 1), chance.choice((1, 1, 2, 4, 8, 40, 200, 4096))
    if chance.random() < 0.3:  # heads matter more than pixels
        start = min(start, chance.randrange(1024))
    dice = chance.random()
    what = chance.randbytes(chance.randint(1, 6))
    if dice < 0.35:
        what = chance.choice(WORDS)
    elif dice < 0.42:
        what = chance.choice(OUTSIDE)
    elif dice < 0.62:
        size = chance.choice((1, 2, 4, 4, 8))
        number = chance.choice(EXTREMES) & ((1 << 8 * size) - 1)
        what = number.to_bytes(size, chance.choice(("little", "big")))
    part = data[start : start + length]
    kind = chance.randrange(12)
    if kind == 0:
        return data[:start] if chance.random() < 0.3 else data[: len(data) - min(length, len(data))]
    if kind == 1:
        return data[:start] + data[start + length :]
    if kind == 2:
        return data[:start] + part * chance.choice((2, 3, 50)) + data[start + length :]
    if kind == 3:
        return data[:start] + what + data[start:]
    if kind in (4, 5) and start < len(data):
        return data[:start] + bytes([data[start] ^ 1 << chance.randrange(8)]) + data[start + 1 :]
    if kind == 6:
        other = chance.choice(donors) if donors and chance.random() < 0.5 else data
        at = chance.randrange(len(other) + 1)
        return data[:start] + other[at : at + length] + data[start + length :]
    if kind in (7, 8):
        return data[:start] + what + data[start + len(what) :]
    words = list(re.finditer(rb"[-+.\w]+", data[:100_000]))
    if not words:
        return data[:start] + what + data[start + len(what) :]
    begin, end = chance.choice(words).span()  # one number or name, so that a text stays well-formed
    return data[:begin] + what + data[end:]


# -- JSON --------------------------------------------------------------------------------------------------

_HOLE = "\ue000hole\ue000"


def _is_json(data: bytes) -> bool:
    return data.lstrip()[:1] in (b"{", b"[") and len(data) < 1_000_000


def spoil_json(data: bytes, chance: random.Random) -> bytes:
    """JSON with a node replaced, taken out, renamed or doubled; raises ValueError where it is none."""
    tree = json.loads(data)
    holders: list[tuple[Any, Any]] = []
    _walk(tree, holders)
    if not holders:
        return chance.choice(NODES).encode()
    holder, key = chance.choice(holders)
    kind = chance.random()
    if kind < 0.7:
        holder[key] = _HOLE
    elif kind < 0.8:
        del holder[key]
    elif kind < 0.9:
        holder[key] = chance.choice(holders)[0]  # may hold itself
        holder[key] = (
            json.loads(json.dumps(holder[key])) if not _is_in(holder, holder[key]) else [holder[key]]
        )
    elif isinstance(holder, list):
        holder.extend([holder[key]] * chance.choice((1, 2, 40)))
    else:
        holder[chance.choice(("", "a", "type", "geometry", str(key).upper(), "\x1b[2J"))] = holder.pop(key)
    text = json.dumps(tree, separators=(",", ":"), ensure_ascii=chance.random() < 0.5)
    text = text.replace(json.dumps(_HOLE), chance.choice(NODES)).replace(f'"{_HOLE}"', chance.choice(NODES))
    return text.encode("utf-8", "surrogatepass")


def _walk(node: Any, holders: list[tuple[Any, Any]]) -> None:
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        holders.append((node, key))
        _walk(value, holders)


def _is_in(inner: Any, outer: Any) -> bool:
    """Whether `inner` is `outer` or lies in it."""
    if inner is outer:
        return True
    values = outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ()
    return any(_is_in(inner, value) for value in values)


# -- TIFF --------------------------------------------------------------------------------------------------


def _is_tiff(data: bytes) -> bool:
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


# Tags that lead somewhere or set a size: more of them than of others.
_TAGS: tuple[int, ...] = (
    254,
    256,
    257,
    258,
    259,
    262,
    270,
    273,
    277,
    278,
    279,
    284,
    317,
    320,
    322,
    323,
    324,
    325,
    330,
    338,
    339,
)
_TAGS += (347, 530, 33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113, 50838, 50839, 50844, 65535)


def _spoil_tiff(data: bytes, chance: random.Random) -> bytes:
    """A TIFF with a field of a directory entry changed."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2 if order == "<" else 3] == 43
    number, entry, link, size = ("Q", "HHQ8s", "Q", 20) if is_big else ("H", "HHI4s", "I", 12)
    at = struct.unpack_from(order + link, data, 8 if is_big else 4)[0]
    places, directories = [], []
    for _ in range(8):
        if not at or at in directories:
            break
        directories.append(at)
        count = struct.unpack_from(order + number, data, at)[0]
        start = at + struct.calcsize(number)
        places += [start + nth * size for nth in range(min(count, 60))]
        at = struct.unpack_from(order + link, data, start + count * size)[0]
    out = bytearray(data)
    if chance.random() < 0.1:  # a directory that leads to another, or to itself
        at = directories[-1]
        count = struct.unpack_from(order + number, data, at)[0]
        target = chance.choice((*directories, chance.randrange(len(data)), 8, 0xFFFFFFF0))
        struct.pack_into(order + link, out, at + struct.calcsize(number) + count * size, target)
        return bytes(out)
    place = chance.choice(places)
    tag, kind, count, value = struct.unpack_from(order + entry, data, place)
    which = chance.randrange(6)
    if which == 0:
        tag = chance.choice(_TAGS)
    elif which == 1:
        kind = chance.choice((*range(1, 14), 16, 17, 18, 0, 255, 65535))
    elif which == 2:
        count = chance.choice((0, 1, 2, count + 1, count * 2, 0x7FFFFFFF, 0xFFFFFFFF, chance.randrange(300)))
    elif which == 3:  # what the entry leads to
        there = int.from_bytes(value, "little" if order == "<" else "big") % max(len(data), 1)
        what = struct.pack(order + "d", chance.choice((0.0, -1.0, 1e308, 1e-308, float("nan"), float("inf"))))
        out[there : there + 8] = what if chance.random() < 0.5 else chance.randbytes(8)
        return bytes(out)
    else:
        width = len(value)
        extreme = chance.choice((*EXTREMES, chance.randrange(len(data) + 9))) & ((1 << 8 * width) - 1)
        value = extreme.to_bytes(width, "little" if order == "<" else "big")
        if kind == 3 and count == 1 and order == ">":
            value = value[-2:] + b"\0" * (width - 2)
    struct.pack_into(order + entry, out, place, tag, kind, count & 0xFFFFFFFF, value)
    return bytes(out)


# -- PNG ---------------------------------------------------------------------------------------------------


def _is_png(data: bytes) -> bool:
    return data.startswith(b"\x89PNG\r\n\x1a\n")


def _spoil_png(data: bytes, chance: random.Random) -> bytes:
    """A PNG with a chunk changed, doubled or taken out, and right checksums."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + length]])
        at += 12 + length
    nth = chance.randrange(len(chunks))
    kind = chance.randrange(5)
    if kind == 0:
        del chunks[nth]
    elif kind == 1:
        chunks.insert(chance.randrange(len(chunks) + 1), list(chunks[nth]))
    elif kind == 2:
        chunks[nth][0] = chance.choice(
            (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"zTXt", b"iTXt", b"eXIf", b"gAMA")
        )
    else:
        chunks[nth][1] = _anywhere(chunks[nth][1], chance, ())
    parts = [len(body).to_bytes(4, "big") + name + body + struct.pack(">I", zlib.crc32(name + body))
             for name, body in chunks]  # fmt: skip
    return data[:8] + b"".join(parts)


# -- protobuf ----------------------------------------------------------------------------------------------


def _is_onnx(data: bytes) -> bool:
    return data[:1] == b"\x08" and b"pytorch" in data[:64]


def _spoil_protobuf(data: bytes, chance: random.Random, depth: int = 0) -> bytes:
    """A message of protobuf with a field changed somewhere, and right lengths around it."""
    fields = protobuf_fields(data)
    nth = chance.randrange(len(fields))
    if depth == 0:  # most bytes are weights; what is in the graph matters
        nth = max(range(len(fields)), key=lambda n: len(fields[n][2])) if chance.random() < 0.7 else nth
    number, wire, value = fields[nth]
    if wire == 2 and value and depth < 8 and chance.random() < 0.85:
        try:
            fields[nth] = (number, wire, _spoil_protobuf(value, chance, depth + 1))
            return b"".join(protobuf_field(*each) for each in fields)
        except (ValueError, IndexError):
            pass
    kind = chance.randrange(9)
    if kind == 0:
        del fields[nth]
    elif kind == 1:
        fields[nth:nth] = [fields[nth]] * chance.choice((1, 2, 30))
    elif kind == 2:
        fields[nth] = (chance.choice((1, 2, 5, 6, 7, 8, 9, 13, 14, 15, 20, 25, number + (1 << 29), 1 << 40)),
                       wire, value)  # fmt: skip
    elif kind == 3:
        fields[nth] = (number, chance.randrange(8), value)
    elif kind == 4:  # a whole number in more bytes than it needs
        text = protobuf_field(number, wire, value)
        before, after = (
            b"".join(protobuf_field(*each) for each in part) for part in (fields[:nth], fields[nth + 1 :])
        )
        return before + bytes([text[0] | 0x80, 0x80, 0]) + text[1:] + after
    elif kind == 5 and wire == 2:
        other = chance.choice(fields)[2]
        fields[nth] = (number, wire, other)
    elif wire == 0:
        fields[nth] = (number, wire, _number(chance.choice(EXTREMES)))
    elif wire == 2:
        texts = (b"Loop", b"If", b"Scan", b"Conv", b"Resize", b"Expand", b"Tile", b"Pad", b"ConstantOfShape")
        body = chance.choice((*texts, *OUTSIDE, b"", b"x", b"\xff" * 9, None, None, None))
        fields[nth] = (number, wire, _anywhere(value, chance, ()) if body is None else body)
    else:
        fields[nth] = (number, wire, chance.randbytes(len(value)))
    return b"".join(protobuf_field(*each) for each in fields)


def protobuf_fields(data: bytes) -> list[tuple[int, int, bytes]]:
    """Number, wire type and bytes of each field; raises ValueError or IndexError for another thing."""
    at, fields = 0, []
    while at < len(data):
        tag, at = _read_number(data, at)
        number, wire = tag >> 3, tag & 7
        start = at
        if wire == 0:
            _, at = _read_number(data, at)
        elif wire == 2:
            length, start = _read_number(data, at)
            at = start + length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError("no protobuf")
        if not number or at > len(data):
            raise ValueError("no protobuf")
        fields.append((number, wire, data[start:at]))
    if not fields:
        raise ValueError("nothing in it")
    return fields


def protobuf_field(number: int, wire: int, value: bytes) -> bytes:
    """A field of a protobuf message: its key, then for wire type 2 the length, then the value."""
    head = _number(number << 3 | wire)
    return head + (_number(len(value)) if wire == 2 else b"") + value


def _number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _read_number(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("no protobuf")


# -- safetensors -------------------------------------------------------------------------------------------


def _is_safetensors(data: bytes) -> bool:
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data)


def _spoil_safetensors(data: bytes, chance: random.Random) -> bytes:
    """Weights with their header, the card in it, or numbers changed; the length before it is mostly right."""
    length = int.from_bytes(data[:8], "little")
    head, body = data[8 : 8 + length], bytearray(data[8 + length :])
    kind = chance.random()
    if kind < 0.35:
        head = spoil_json(head, chance)
    elif kind < 0.6:
        facts = json.loads(head)
        name = chance.choice(list(facts["__metadata__"]))
        card = facts["__metadata__"][name].encode("utf-8", "surrogatepass")
        facts["__metadata__"][name] = spoil_json(card, chance).decode("utf-8", "surrogatepass")
        head = json.dumps(facts).encode()
    elif kind < 0.8:
        facts = json.loads(head)
        names = [name for name in facts if name != "__metadata__"]
        entry = facts[chance.choice(names)]
        place = chance.randrange(4)
        if place == 0:
            entry["dtype"] = chance.choice(
                ("F64", "F32", "F16", "BF16", "I64", "I8", "U8", "BOOL", "F8_E4M3", "X")
            )
        elif place == 1:
            entry["shape"] = chance.choice(
                ([], [0], [1], entry["shape"][::-1], entry["shape"] + [1], [1 << 40])
            )
        elif place == 2:
            entry["data_offsets"] = chance.choice(([0, 0], [0, len(body)], [len(body), 0], [-1, 4]))
        else:
            facts[chance.choice(("x", "__metadata__", *names))] = facts.pop(chance.choice(names))
        head = json.dumps(facts).encode()
    else:
        width, code = chance.choice(((2, "<e"), (4, "<f")))
        number = struct.pack(
            code, chance.choice((float("nan"), float("inf"), float("-inf"), 6e4, -6e4, 1e-7))
        )
        for _ in range(chance.choice((1, 3, 500))):
            at = chance.randrange(max(1, len(body) // width)) * width
            body[at : at + width] = number
    stated = len(head) if chance.random() < 0.9 else chance.choice(EXTREMES) & ((1 << 64) - 1)
    return stated.to_bytes(8, "little") + head + bytes(body)


# -- SQLite ------------------------------------------------------------------------------------------------


def _is_sqlite(data: bytes) -> bool:
    return data.startswith(b"SQLite format 3\0")


_VALUES: tuple[Any, ...] = (
    None,
    0,
    -1,
    1,
    1 << 62,
    -(1 << 63),
    1e308,
    -1e308,
    float("inf"),
    0.5,
    "",
    "a",
    "1",
)
_VALUES += ("\x1b[2J\n", "=1+1", b"", b"\0", b"GP\0\1\0\0\0\0", "[]", "{", "\0", "NaN", "-1")


def _spoil_sqlite(data: bytes, chance: random.Random) -> bytes:
    """A database that stays one, with a cell, a row, a table or its statement changed; or a page damaged."""
    if chance.random() < 0.35:
        return _spoil_page(data, chance)
    with _closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        is_wal = data[18:20] == b"\2\2"  # can't be opened in memory as it is
        database.deserialize(data[:18] + b"\1\1" + data[20:] if is_wal else data)
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        table = chance.choice(tables)
        columns = [row[1] for row in database.execute(f'PRAGMA table_info("{table}")')]
        column = chance.choice(columns)
        rows = database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]
        nth = chance.randrange(max(rows, 1))
        key = chance.choice(columns)
        kind = chance.random()
        if kind < 0.6 and rows:
            old, mark = database.execute(
                f'SELECT "{column}", "{key}" FROM "{table}" ORDER BY 1, 2 LIMIT 1 OFFSET {nth}'
            ).fetchone()
            new = chance.choice(_VALUES)
            if isinstance(old, bytes) and old and chance.random() < 0.8:
                new = _anywhere(old, chance, ())
            elif isinstance(old, str) and chance.random() < 0.3:
                new = chance.choice(OUTSIDE).decode()
            elif isinstance(old, (int, float)) and chance.random() < 0.5:
                new = old + chance.choice((1, -1, 0.5, 8))
            where = "" if chance.random() < 0.2 else f'WHERE "{key}" IS ?'
            database.execute(
                f'UPDATE OR IGNORE "{table}" SET "{column}" = ? {where}', (new, mark)[: 1 + bool(where)]
            )
        elif kind < 0.7:
            database.execute(f'DELETE FROM "{table}"')
        elif kind < 0.75:
            database.execute(f'DROP TABLE "{table}"')
        elif kind < 0.85:
            number = chance.choice((0, 1, 2, 3, 99, -1, 0x47504B47, 2**31 - 1))
            database.execute(f"PRAGMA {chance.choice(('user_version', 'application_id'))} = {number}")
        elif kind < 0.92:
            query = f'SELECT * FROM "{table}" AS t'
            database.execute(f'ALTER TABLE "{table}" RENAME TO "gone"')
            endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"
            database.execute(f'CREATE VIEW "{table}" AS {chance.choice((query, endless, query + ", gone"))}')
        else:
            database.execute(
                f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "{chance.choice(("x", "id", "geom"))}"'
            )
        out = bytes(database.serialize())
    return out[:18] + b"\2\2" + out[20:] if is_wal else out


def _spoil_page(data: bytes, chance: random.Random) -> bytes:
    """A page of a database with its head, a cell's place or some bytes changed."""
    size = int.from_bytes(data[16:18], "big") or 4096
    size = 65536 if size == 1 else max(size, 512)
    page = chance.randrange(max(1, len(data) // size)) * size
    out = bytearray(data)
    head = page + (100 if page == 0 else 0)
    for _ in range(chance.choice((1, 1, 5, 20))):
        where = chance.choice(
            (chance.randrange(12), 8 + 2 * chance.randrange(40), chance.randrange(size - 100))
        )
        at = min(head + where, len(out) - 1)
        out[at] = chance.choice((0, 0xFF, out[at] ^ 1 << chance.randrange(8), chance.randrange(256)))
    return bytes(out)


def _is_wal(data: bytes) -> bool:
    return data[:4] in (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")


def _spoil_wal(data: bytes, chance: random.Random) -> bytes:
    """A write-ahead log with a page changed, and mostly right checksums from there on."""
    size = int.from_bytes(data[8:12], "big")
    frames = (len(data) - 32) // (size + 24)
    nth = chance.randrange(frames)
    start = 32 + nth * (size + 24)
    page = bytearray(data[start + 24 : start + 24 + size])
    for _ in range(chance.choice((1, 1, 5, 20))):
        page[chance.randrange(size)] = chance.randrange(256)
    out = bytearray(data[: start + 24] + bytes(page) + data[start + 24 + size :])
    if chance.random() < 0.2:
        struct.pack_into(">I", out, start, chance.choice((0, 1, 2, 3, 0xFFFFFFFF)))
    if chance.random() < 0.3:
        return bytes(out)
    order = ">" if data[3] == 0x83 else "<"
    before = start - size - 8 if nth else 24  # checksums of the frame before, or of the head
    a, b = struct.unpack_from(">II", data, before if nth else 24)
    for frame in range(nth, frames):
        at = 32 + frame * (size + 24)
        for begin, count in ((at, 8), (at + 24, size)):
            words = struct.unpack_from(f"{order}{count // 4}I", out, begin)
            for x, y in zip(words[::2], words[1::2], strict=True):
                a = (a + x + b) & 0xFFFFFFFF
                b = (b + y + a) & 0xFFFFFFFF
        struct.pack_into(">II", out, at + 16, a, b)
    return bytes(out)


class _closing:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> sqlite3.Connection:
        return self._database

    def __exit__(self, *_: object) -> None:
        self._database.close()


# -- archives ----------------------------------------------------------------------------------------------


def _is_zip(data: bytes) -> bool:
    return data.startswith(b"PK\3\4")


def _spoil_zip(data: bytes, chance: random.Random) -> bytes:
    """An archive with a member changed or renamed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = chance.choice(list(members))
    if chance.random() < 0.2:
        members[chance.choice(("../x", "/etc/x", "doc.kml", "a/b.kml"))] = members.pop(name)
    else:
        members[name] = spoilt(members[name], chance)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, content in members.items():
            archive.writestr(zipfile.ZipInfo(each), content)
    return out.getvalue()


_FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes, random.Random], bytes]], ...] = (
    (_is_tiff, _spoil_tiff),
    (_is_png, _spoil_png),
    (_is_sqlite, _spoil_sqlite),
    (_is_wal, _spoil_wal),
    (_is_zip, _spoil_zip),
    (_is_safetensors, _spoil_safetensors),
    (_is_json, spoil_json),
    (_is_onnx, _spoil_protobuf),
)

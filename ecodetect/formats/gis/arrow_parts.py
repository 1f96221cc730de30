"""A table on its way out of `guard`'s child: facts as JSON, then record batches, each with its schema."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from ecodetect.errors import LayerError
from ecodetect.guarding import guard

_MOST_BYTES = 4 << 30
# What a file gives for each of its bytes: formats pack numbers, a view may join tables, but not without end.
_MOST_PER_BYTE = 100
ALWAYS_BYTES = 100 << 20  # bytes
_PIECE_BATCHES = 3


def sent(facts: Mapping[str, Any], schema: Any, batches: Iterable[Any]) -> Iterator[bytes]:
    """The parts in which the child sends a table."""
    yield json.dumps(facts).encode()
    yield _packed(schema, [])
    for batch in batches:
        yield _packed(schema, [batch])


def _packed(schema: Any, batches: list[Any]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        for batch in batches:
            stream.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def received(function: str, *given: Any, path: Path, size: int) -> tuple[dict[str, Any], Any]:
    """The facts and the pyarrow Table that a function of the child sends, in its parent.

    path : for messages.  size : bytes of the file.
    Raises LayerError, also where it gives back far more than the file can hold.
    """
    most = min(_MOST_BYTES, ALWAYS_BYTES + _MOST_PER_BYTE * size)
    with closing(guard.stream(function, *given, about=str(path), error=LayerError, bytes_read=size)) as parts:
        facts = json.loads(next(parts))
        return facts, pa.concat_tables(_tables(parts, most, path, size))


def received_in_pieces(
    function: str, *given: Any, path: Path, size: int
) -> Iterator[tuple[dict[str, Any], Any]]:
    """As `received`, of a file of ours that may be larger than memory: the facts with some batches each."""
    most = ALWAYS_BYTES + _MOST_PER_BYTE * size
    with closing(guard.stream(function, *given, about=str(path), error=LayerError, bytes_read=size)) as parts:
        facts = json.loads(next(parts))
        tables = _tables(parts, most, path, size)
        while some := list(islice(tables, _PIECE_BATCHES)):
            yield facts, pa.concat_tables(some)


def _tables(parts: Iterator[bytes], most: int, path: Path, size: int) -> Iterator[Any]:
    held = 0
    for part in parts:
        held += len(part)
        if held > most:
            raise LayerError(
                f"{path} has {size / 1e6:.3g} MB and gives more than {most / 1e9:.2g} GB of features, so"
                " they are made up by a view; save those that are meant as a layer."
            )
        yield pa.ipc.open_stream(part).read_all()

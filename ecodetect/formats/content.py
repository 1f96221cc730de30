"""A hash of the features in a file, by which a scan sees that its output was edited.

The hash is of the features, in whatever order, not of the file: opening a GeoPackage in QGIS changes its
bytes, and so does a tool that lays JSON out again. With the hash, features are counted by raster and class.
Formats without a place for metadata have a small side file (`SIDE`) instead, with the hash of their bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ecodetect.errors import LayerError
from ecodetect.formats.metadata import BLANK
from ecodetect.layer import Layer

SIDE = ".ecodetect"  # after the whole name; no suffix that a reader of features or rasters knows
_BLOCK = 1 << 20
_MOST_SIDE_BYTES = 64 << 20
_TEXTS = frozenset((".csv", ".tsv", ".txt", ".names", ".xml", ".geojsonl", ".geojsons"))


@dataclass(slots=True)
class Tally:
    """How many individuals a file holds.

    counts : (source, beginning of the id, label) -> features. Ids begin with the raster's fingerprint, which
        tells apart rasters of one name.
    species : answer of a classifier -> features.
    """

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    species: Counter[str] = field(default_factory=Counter)

    def add(self, columns: Mapping[str, Sequence[Any]], n: int) -> None:
        """Count features.  columns : name -> (n,) values. Squares around candidates don't count."""
        blank: list[str] = [""] * n
        shape = columns.get("shape", blank)
        kept = [text != "patch" for text in shape]
        parts = (columns.get("source", blank), columns.get("id", blank), columns.get("label", blank))
        self.counts.update(
            (_text(source), _text(name).partition("-")[0], _text(label))
            for is_kept, source, name, label in zip(kept, *parts, strict=True)
            if is_kept
        )
        self.species.update(filter(None, map(_text, columns.get("species", ()))))

    def through(self, batches: Iterable[Layer]) -> Iterator[Layer]:
        """Layers on their way into a file, counted."""
        for batch in batches:
            names = ("shape", "source", "id", "label", "species")
            columns = {name: batch.columns[name].tolist() for name in names if name in batch.columns}
            self.add(columns, len(batch))
            yield batch

    def of(self, source: str, fingerprint: str) -> dict[str, int]:
        """Features by label of one raster.  fingerprint : tells rasters of one name apart where ids do."""
        mine = [key for key in self.counts if key[0] in (source, "")]
        own = [key for key in mine if key[1] == fingerprint[:8]]
        found: Counter[str] = Counter()
        for key in own or mine:
            found[key[2]] += self.counts[key]
        return dict(found)

    def to_json(self) -> dict[str, Any]:
        return {
            "counts": [[*key, n] for key, n in sorted(self.counts.items())],
            "species": dict(sorted(self.species.items())),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Tally:
        """What `to_json` gave; raises ValueError, TypeError or KeyError for anything else."""
        counts = {(str(s), str(i), str(label)): int(n) for s, i, label, n in found["counts"]}
        return cls(Counter(counts), Counter({str(k): int(n) for k, n in found["species"].items()}))


class Content:
    """The features of a file as they are gone through: their hash, in whatever order, and their tally."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._sum = self._n = 0
        self._names: tuple[str, ...] = ()

    def add_arrow(self, batch: Any, geometry: str) -> None:
        """Features of an Arrow record batch.  geometry : name of its column of WKB.

        An empty text counts as a missing one, and whole numbers as others: databases don't tell them apart.
        """
        names = sorted(name for name in batch.schema.names if name != geometry)
        columns = {name: batch.column(name).to_pylist() for name in names}
        self._names = tuple(names)
        shapes = batch.column(geometry).to_pylist()
        texts = [[_text(value) for value in columns[name]] for name in names]
        for shape, *row in zip(shapes, *texts, strict=True):
            self._add("\x1f".join(row).encode(errors="surrogatepass") + b"\x1e" + (shape or b""))
        self.tally.add(columns, len(shapes))

    def add_json(self, value: Any) -> None:
        """A feature, or what else counts, as parsed JSON; the tally is the caller's."""
        self._add(json.dumps(value, sort_keys=True).encode())

    def _add(self, feature: bytes) -> None:
        # A sum doesn't depend on the order, and nothing has to be held.
        self._sum += int.from_bytes(hashlib.blake2b(feature, digest_size=32).digest(), "big")
        self._n += 1

    @property
    def digest(self) -> str:
        """64 hexadecimal digits."""
        facts = f"{self._n} {self._sum % 2**256:x} {' '.join(self._names)}"
        return hashlib.sha256(facts.encode(errors="surrogatepass")).hexdigest()


def _text(value: Any) -> str:
    """A value of a column, such that it is the same however a database has kept it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (bool, int, float, np.number)):
        return repr(float(value))
    return value if isinstance(value, str) else str(value)


def seal_in_place(path: Path, digest: str, start: int, stop: int) -> None:
    """Write the hash over `BLANK`, which stands once in these bytes of a file."""
    with path.open("r+b") as file:
        file.seek(start)
        at = file.read(stop - start).find(BLANK.encode())
        if at < 0:
            raise OSError("the metadata didn't arrive in the file")
        file.seek(start + at)
        file.write(digest.encode())


# -- side files --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Side:
    """What a side file says of the file beside it: the scan's metadata, hash of the bytes, and tally."""

    metadata: Mapping[str, Any]
    digest: str
    tally: Tally


def side_of(path: Path) -> Path:
    """The side file of a file."""
    return path.with_name(path.name + SIDE)


def write_side(path: Path, metadata: Mapping[str, Any], others: tuple[str, ...], tally: Tally) -> None:
    """Write the side file of a file that is written.  others : as in `digest_of_bytes`."""
    facts = {"ecodetect": dict(metadata), "content": digest_of_bytes(path, others), **tally.to_json()}
    side_of(path).write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_side(path: Path) -> Side | None:
    """The side file of a file; None where there is none that can be read."""
    side = side_of(path)
    try:
        if not side.is_file() or side.stat().st_size > _MOST_SIDE_BYTES:
            return None
        found = json.loads(side.read_text(encoding="utf-8"))
        return Side(dict(found["ecodetect"]), str(found["content"]), Tally.from_json(found))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def digest_of_bytes(path: Path, others: tuple[str, ...]) -> str:
    """Hash of a file's bytes, and of those beside it with one of the suffixes `others`.

    How lines end doesn't count (tools change it in passing), nor does the date in a table of a Shapefile.
    """
    digest = hashlib.sha256()
    for file in (path, *(path.with_suffix(suffix) for suffix in others)):
        digest.update(f"\0{file.suffix.lower()}\0".encode())
        if not file.is_file():
            continue
        try:
            with file.open("rb") as stream:
                for block in _blocks(stream, file.suffix.lower()):
                    digest.update(block)
        except OSError as error:
            raise LayerError(f"{file} can't be read: {error.strerror or error}.") from error
    return digest.hexdigest()


def _blocks(stream: BinaryIO, suffix: str) -> Iterator[bytes]:
    if suffix == ".dbf":
        head = stream.read(32)
        yield head[:1] + head[4:]  # without the date
    held = b""
    while block := stream.read(_BLOCK):
        if suffix in _TEXTS:
            block = held + block
            held = block[-1:] if block.endswith(b"\r") else b""
            block = block[: len(block) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield block
    if held:
        yield b"\n"

"""A model in ONNX: the card in its metadata, and what is looked at before a runtime may open it.

Read without the packages `onnx` and `protobuf`: of the format (https://onnx.ai/onnx/repo-docs/IR.html,
https://protobuf.dev/programming-guides/encoding) only what a card, a count and a refusal need.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ecodetect.bundle import KEY, Bundle, BundleError, Card

STRIDE_KEY = "ecodetect.stride"
_LARGEST_BYTES = 2**31 - 1  # of a protobuf message
_DEEPEST = 32  # graphs within graphs
# Message -> number of a field -> the message in it; only ways that lead to a tensor, or to the metadata.
_INSIDE = {
    "model": {7: "graph", 14: "entry", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "weight", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_MOST_SIDES = 8  # of a tensor
_DIMS, _EXTERNAL, _LOCATION = 1, 13, 14  # of a tensor


@dataclass(frozen=True, eq=False, slots=True)
class OnnxModel(Bundle):
    """What stands for a bundle where a model was exported: its weights are inside `content`.

    content : the file.
    stride : of the network; sides of batches are multiples of it.
    parameters : how many numbers are learned.
    """

    content: bytes
    stride: int
    parameters: int

    @property
    def hash(self) -> str:
        """Of the whole file: what an output says it was made with."""
        return hashlib.sha256(self.content).hexdigest()[:16]


def read_card(path: str | os.PathLike[str]) -> Card:
    """The card of a model in ONNX; raises BundleError as `read` does."""
    return read(path).card


def read(path: str | os.PathLike[str]) -> OnnxModel:
    """A model in ONNX that `ecodetect export` has written.

    Raises BundleError, in one sentence, for a file that is missing, damaged, something else, without our
    card, or whose weights lie in other files (they could be any file of this machine).
    """
    try:
        if not Path(path).is_file():
            raise BundleError(f"There is no file {path}.")
        if Path(path).stat().st_size > _LARGEST_BYTES:
            raise BundleError(f"{path} is larger than the 2 GB that a file in ONNX can have.")
        content = Path(path).read_bytes()
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror or error}.") from error
    found = _Found({}, [], 0)
    try:
        _look(memoryview(content), "model", found, 0)
    except (ValueError, IndexError) as error:
        raise BundleError(f"{path} is no file in ONNX, or it is damaged or cut short.") from error
    if "graph" not in found.kinds:
        raise BundleError(f"{path} is no file in ONNX, or it is damaged or cut short.")
    if "external" in found.kinds:
        raise BundleError(f"{path} keeps weights in other files, which are never opened; export it as one.")
    card, stride = found.entries.get(KEY), found.entries.get(STRIDE_KEY, "")
    if card is None:
        raise BundleError(f"{path} has no card of ecodetect; only what `ecodetect export` wrote can be used.")
    if not (stride.isascii() and stride.isdigit() and 1 <= int(stride[:6]) <= 1024):
        raise BundleError(f"The card of {path} is damaged (its stride can't be '{stride[:20]}').")
    return OnnxModel(Card.from_json(card, source=str(path)), {}, content, int(stride), found.parameters)


@dataclass(slots=True)
class _Found:
    """entries: of the metadata.  kinds: of messages that there were.  parameters: in the weights."""

    entries: dict[str, str]
    kinds: list[str]
    parameters: int


def _look(message: memoryview, kind: str, found: _Found, depth: int) -> None:
    """Go through a message and what is in it; raises ValueError or IndexError where it is damaged."""
    if depth > 4 * _DEEPEST:
        raise ValueError("graphs within graphs without end")
    if kind == "graph":
        found.kinds.append(kind)
    if kind == "entry":
        texts = {
            number: str(value, "utf-8") for number, value in _fields(message) if not isinstance(value, int)
        }
        found.entries[texts.get(1, "")] = texts.get(2, "")
        return
    is_tensor, sides = kind in ("tensor", "weight"), []
    for number, value in _fields(message):
        if is_tensor:
            if number == _EXTERNAL or (number == _LOCATION and value):
                found.kinds.append("external")
            elif number == _DIMS:
                sides += [value] if isinstance(value, int) else _varints(value)
                if len(sides) > _MOST_SIDES:
                    raise ValueError("a tensor of too many dimensions")
            continue
        inner = _INSIDE[kind].get(number)
        if inner is not None:
            if isinstance(value, int):
                raise ValueError("a number in the place of a message")
            _look(value, inner, found, depth + 1)
    if kind == "weight":
        found.parameters += math.prod(sides)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field: a whole number, or bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError("a kind of field that there isn't")
        if number == 0 or at + length > len(message):
            raise ValueError("cut short")
        yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A whole number and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number without end")


def _varints(packed: memoryview) -> list[int]:
    """Those of a tensor's sides, and one more where there are too many."""
    at = 0
    values: list[int] = []
    while at < len(packed) and len(values) <= _MOST_SIDES:
        value, at = _varint(packed, at)
        values.append(value)
    return values

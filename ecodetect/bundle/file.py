"""A model in one file: weights and the card that says what they are for.

A bundle is a `.safetensors` file; its card is canonical JSON under the metadata key `ecodetect`. Opening one
runs no code and reads only the header. Format: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ecodetect.bundle.card import Card
from ecodetect.errors import BundleError
from ecodetect.whole_file import write_whole

KEY = "ecodetect"
_GRAPH_KEY = "graph."  # before its name, among the arrays of a file
_LARGEST_GRAPH = 8_000_000  # bytes

# Training never makes weights this large: in 32 bits, a learning step and anything added to them would be
# lost. Known weights are below 60, variances below 600, and 16 bits hold up to 65,504. Learners store
# features (64 bits) in units of their own: squares of a raster's values at most.
LARGEST_WEIGHT, LARGEST_VARIANCE, _LARGEST_OF_FEATURE = 1e12, 1e24, 1e30
_LARGEST_BYTES, _MOST_ARRAYS = 4_000_000_000, 20_000  # of a file
_TYPES = {"F16", "F32", "F64", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64"}

Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False, slots=True)
class Bundle:
    """A card with its weights.

    weights : name -> array, as the network's state names them.
    graphs : name -> a graph in ONNX without weights; the card lists its outputs.
    """

    card: Card
    weights: Weights
    graphs: Mapping[str, bytes] = field(default_factory=dict, kw_only=True)

    @property
    def hash(self) -> str:
        """A hash of card and weights; outputs name the model that made them by it."""
        return _hash(self)


@lru_cache(maxsize=4)  # asked for with each of many rasters
def _hash(made: Bundle) -> str:
    digest = hashlib.sha256(made.card.to_json().encode())
    for name in sorted(made.weights):
        values = np.asarray(made.weights[name], order="C")
        digest.update(f"{name}{values.dtype.str}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:16]


def read_card(path: str | os.PathLike[str]) -> Card:
    """The card of a bundle; reads the header only."""
    with _opened(path) as file:
        text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise BundleError(f"{path} holds weights without an ecodetect card, so it isn't a bundle.")
    return Card.from_json(text, source=str(path))


def read(path: str | os.PathLike[str]) -> Bundle:
    """A bundle with its weights.

    Raises BundleError, in one sentence, for a file that is missing, cut short, damaged, or something else (a
    pickle with another name is refused, never opened).
    """
    card, arrays = read_card(path), read_weights(path)
    stored = {name: arrays.pop(name) for name in list(arrays) if name.startswith(_GRAPH_KEY)}
    graphs = {name.removeprefix(_GRAPH_KEY): values.tobytes() for name, values in stored.items()}
    said = {name: graph.sha256 for name, graph in card.graphs.items()}
    if {name: hashlib.sha256(content).hexdigest() for name, content in graphs.items()} != said:
        raise BundleError(f"{path} is damaged: its graphs aren't those of its card.")
    if max(map(len, graphs.values()), default=0) > _LARGEST_GRAPH:
        raise BundleError(
            f"{path} holds a graph of more than {_LARGEST_GRAPH / 1e6:g} MB, which no network has."
        )
    return Bundle(card, arrays, graphs=graphs)


def read_weights(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """The arrays of any .safetensors file, also one without a card (ImageNet weights).

    Raises BundleError also for arrays that can't be weights: other types, or what `check_weights` refuses.
    """
    with _opened(path) as file:
        try:
            names = list(file.keys())
            if len(names) > _MOST_ARRAYS:
                raise BundleError(f"{path} holds {len(names)} arrays, which no network has.")
            types = {file.get_slice(name).get_dtype() for name in names} - _TYPES
            if types:
                raise BundleError(
                    f"{path} holds weights of the type {min(types)}, which can't be used here; convert them"
                    " with PyTorch (`tensor.to(torch.float32)`) and save the file again."
                )
            weights = {name: file.get_tensor(name) for name in names}
        except BundleError:
            raise
        except (SafetensorError, TypeError, ValueError, AttributeError, OverflowError, MemoryError) as error:
            raise BundleError(f"{path} is damaged ({error}).") from error
    check_weights(weights, str(path))
    return weights


def check_weights(weights: Weights, shown: str) -> None:
    """Raise BundleError for weights that aren't finite, or larger than training makes them.

    A network with them may answer 0 everywhere, and a scan would silently find nothing.
    shown : the file, for messages.
    """
    for name, values in weights.items():
        if values.dtype.kind != "f" or not values.size:
            continue
        least, most = float(values.min()), float(values.max())  # NaN is either
        is_variance = name.endswith("running_var")
        if not (math.isfinite(least) and math.isfinite(most)):
            raise BundleError(
                f"{shown} is damaged: its weights hold a value that isn't finite ({_line(name)})."
            )
        if is_variance and least < 0:
            raise BundleError(f"{shown} is damaged: it holds a variance below 0 ({_line(name)}).")
        if max(-least, most) > largest_weight(name, values.dtype):
            raise BundleError(
                f"{shown} is damaged: it holds a weight of {max(-least, most):.0e}, larger than training"
                f" makes any ({_line(name)})."
            )


def largest_weight(name: str, dtype: np.dtype[Any]) -> float:
    """The largest value allowed in weights of this name and type."""
    if dtype.itemsize == 8:
        return _LARGEST_OF_FEATURE
    return LARGEST_VARIANCE if name.endswith("running_var") else LARGEST_WEIGHT


def _line(name: str) -> str:
    """The name of an array, in a sentence."""
    return " ".join(name.split())[:80]


def _opened(path: str | os.PathLike[str]) -> Any:
    try:
        if not Path(path).is_file():
            raise BundleError(f"There is no file {path}.")
        if Path(path).stat().st_size > _LARGEST_BYTES:
            raise BundleError(f"{path} is larger than {_LARGEST_BYTES / 1e9:g} GB, more than any model.")
        return safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise BundleError(f"{path} is not a .safetensors file, or it is damaged or cut short.") from error
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror or error}.") from error


def check_answers(answers: Sequence[NDArray[np.float32]], name: str) -> None:
    """Raise BundleError where a network's answers aren't finite, so they can't be decoded.

    The input is always finite (`scaling.scaled`), so the weights are to blame. Summing is a cheap test (a
    hundredth of the network's time); finite values whose sum overflows are checked one by one.
    """
    for answer in answers:
        with np.errstate(over="ignore", invalid="ignore"):
            total = answer.sum()
        if not np.isfinite(total) and not np.isfinite(answer).all():
            raise BundleError(f"The model '{name}' is damaged: it gives a value that isn't finite.")


def write(path: str | os.PathLike[str], bundle: Bundle, *, replace: bool = True) -> None:
    """Write a bundle whole or not at all; the same bundle gives the same bytes.

    replace : overwrite an existing file, which is an error otherwise.
    """
    target = Path(path)
    arrays = {name: np.asarray(values, order="C") for name, values in bundle.weights.items()}
    for name, content in bundle.graphs.items():
        arrays[_GRAPH_KEY + name] = np.frombuffer(content, np.uint8)
    try:
        write_whole(target, save(arrays, metadata={KEY: bundle.card.to_json()}), replace=replace)
    except OSError as error:
        raise BundleError(f"{target} can't be written: {error.strerror or error}.") from error


def half(weights: Weights) -> dict[str, NDArray[Any]]:
    """The same weights with floats stored in 16 bits, as in the bundles that we ship."""
    return {
        name: values.astype(np.float16) if values.dtype.kind == "f" else values
        for name, values in weights.items()
    }

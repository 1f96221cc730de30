"""Writes down a network's parts as graphs that run without torch, once, when a bundle is made.

torch's exporter by tracing: the one by `torch.export` takes a hundred times as long and gives the same graph.
What tracing may get wrong, sizes that become constants, shows in the check: each graph is run at other sizes
and numbers of images, and must answer as torch does.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecodetect.bundle.card import SCHEMA, Card, StoredGraph
from ecodetect.bundle.file import Bundle
from ecodetect.errors import UserError
from ecodetect.networks.network import Part, TrainableNetwork
from ecodetect.runtime import graph_file
from ecodetect.runtime.onnx_file import OPSET
from ecodetect.runtime.onnx_network import open_part
from ecodetect.runtime.torch_network import load, reach

MOST_OFF = 1e-4  # of the largest value of an output
_INPUT = "image"


def with_graphs(bundle: Bundle, build: Callable[[], TrainableNetwork]) -> tuple[Bundle, float]:
    """The bundle with the graphs of its network; as it is where the network has no parts to store.

    build : how torch's module for the bundle's card is made.
    Returns also the largest difference between ONNX Runtime's and torch's answers, as a share of the largest.
    Raises UserError where torch can't write a part, or ONNX Runtime's answers differ from torch's by more
    than `MOST_OFF` of the largest.
    """
    network = build().eval()
    if not network.parts():
        return bundle, 0.0
    own = {name: values for name, values in bundle.weights.items() if name in network.state_dict()}
    load(network, own, name=bundle.card.name)
    bands = len(bundle.card.bands)
    content = {name: _traced(network, part, bands) for name, part in network.parts().items()}
    facts = {
        name: StoredGraph.of(content[name], _outputs(network, part, bands))
        for name, part in network.parts().items()
    }
    card = replace(bundle.card, schema=SCHEMA, stride=network.stride, graphs=facts)
    if card.reach_px is None:  # to be measured once, and torch measures it
        card = replace(card, reach_px=reach(network, bands))
    made = Bundle(card, bundle.weights, graphs=content)
    off = max(_difference(made, name, network, part) for name, part in network.parts().items())
    if not off <= MOST_OFF:
        raise UserError(
            f"The graph of '{card.name}' can't be stored: ONNX Runtime's answers differ from torch's by"
            f" {off:.2g} of the largest value, and {MOST_OFF:g} is allowed."
        )
    return made, off


def check(network: TrainableNetwork, build: Callable[[], TrainableNetwork], card: Card) -> None:
    """Raise UserError, before hours of training, for a network whose graph can't be stored.

    build : as of `with_graphs`.  card : of the network.
    """
    weights = {name: values.numpy().copy() for name, values in network.state_dict().items()}
    try:
        with_graphs(Bundle(replace(card, reach_px="whole image"), weights), build)
    except UserError as error:
        raise UserError(f"This backbone can't be trained: {error}", parameter="backbone") from error


def _traced(network: TrainableNetwork, part: Part, bands: int) -> bytes:
    side, channels = part.side or 4 * network.stride, part.channels or bands
    axes = {0: "n"} if part.is_fixed else {0: "n", 2: "height", 3: "width"}
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            file = io.BytesIO()
            torch.onnx.export(
                _Listed(network, part), (torch.zeros(1, channels, side, side),), file,  # type: ignore[arg-type]
                input_names=[_INPUT], output_names=list(part.outputs), dynamic_axes={_INPUT: axes},
                opset_version=OPSET, dynamo=False, do_constant_folding=False,
                training=torch.onnx.TrainingMode.PRESERVE,  # normalisation stays apart
            )  # fmt: skip
        names = {f"network.{name}": name for name in network.state_dict()}
        return graph_file.bare(file.getvalue(), names)
    except Exception as error:  # as many kinds as there are networks that it can't follow
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"torch can't write this network in ONNX: {first[:200].rstrip('.')}.") from error


class _Listed(nn.Module):
    """A part of a network whose answer is a tuple; all the network's weights keep their names."""

    def __init__(self, network: TrainableNetwork, part: Part) -> None:
        super().__init__()
        self.network = network
        self.part = part
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return _listed(self.part.forward(x))


def _listed(answer: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (answer,) if isinstance(answer, Tensor) else tuple(answer)


def _outputs(network: TrainableNetwork, part: Part, bands: int) -> dict[str, int]:
    """Channels of each output."""
    answers = _run(part, _noise(part, network.stride, bands)[:1])
    return {name: int(each.shape[1]) for name, each in zip(part.outputs, answers, strict=True)}


def _difference(bundle: Bundle, name: str, network: TrainableNetwork, part: Part) -> float:
    """The largest difference between ONNX Runtime and torch on noise, as a share of the largest value."""
    noise = _noise(part, network.stride, len(bundle.card.bands))
    wanted = _run(part, noise)
    values = sum(each.size for each in wanted) // (noise.size // noise.shape[1])  # per pixel
    session = open_part(bundle, name, part.outputs, device="cpu", values=values)
    return max(map(_off, wanted, session.run(noise)))


def _noise(part: Part, stride: int, bands: int) -> NDArray[np.float32]:
    sides = (part.side or 5 * stride, part.side or 7 * stride)
    if part.side and not part.is_fixed:
        sides = (part.side + 2 * stride, part.side + 4 * stride)
    return np.random.default_rng(0).normal(0.5, 0.5, (2, part.channels or bands, *sides)).astype(np.float32)


def _run(part: Part, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    with torch.inference_mode():
        return [each.numpy() for each in _listed(part.forward(torch.from_numpy(batch)))]


def _off(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    """The largest difference; infinite if the shapes differ or a value isn't finite."""
    if one.shape != two.shape:
        return math.inf
    off = float(np.abs(one - two).max()) / max(float(np.abs(one).max()), 1e-6)
    return off if math.isfinite(off) else math.inf

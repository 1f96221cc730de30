"""Exports a bundle as one ONNX file, for `scan` without torch and other programs: `ecodetect export`.

The network is the one that `scan` runs, with normalisation folded in. The card is the same JSON under the
same key of the metadata; facts about the model are there too, under the names that the QGIS plugin Deepness
reads (https://qgis-plugin-deepness.readthedocs.io, "Adding metadata to ONNX model").
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.card import Card
from ecodetect.bundle.file import KEY, Bundle, write
from ecodetect.detectors import table as detectors
from ecodetect.detectors.learned import NetworkKind
from ecodetect.detectors.learned_detector import LearnedDetector, NetworkLook
from ecodetect.detectors.protocol import Detector, Scene
from ecodetect.errors import UserError, already_there
from ecodetect.extras import check_installed
from ecodetect.models import choosing as models
from ecodetect.runtime.onnx_file import OPSET, STRIDE_KEY, OnnxModel
from ecodetect.whole_file import write_whole

if TYPE_CHECKING:
    from torch import nn

    from ecodetect.runtime.torch_network import TorchNetwork

MOST_OFF = 1e-4  # allowed difference, relative to the largest value of an output
_INPUT = "image"


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export.

    path : the written file.
    megabytes : its size.
    difference : the largest difference between ONNX Runtime and torch on the same input; relative: to the
        largest value.
    outputs : names of the network's outputs.
    """

    path: Path
    megabytes: float
    difference: float
    relative: float
    outputs: tuple[str, ...]


def export(
    model: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    options: Mapping[str, str] | None = None,
    tile_px: int | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a bundle as ONNX, after checking that ONNX Runtime gives the same outputs as torch.

    Parameters
    ----------
    model : str or path-like
        A bundle's file, or the name of a model that comes with ecodetect.
    target : str or path-like
        The file, `.onnx`.
    options : mapping, optional
        Options of the detector, name -> text, if the network depends on them.
    tile_px : int, optional
        Fix the input to one square image of this side in pixels, as Deepness needs it; `scan` can't use such
        a file. None: any number of images whose sides are multiples of the network's stride.
    overwrite : bool
        Replace an existing target.

    Returns
    -------
    Exported
        The input of the network is float32 (N, B, H, W), scaled as the card says.

    Raises
    ------
    UserError
        In one sentence, when a package is missing or the outputs differ; `target` is then unchanged.
    """
    path = Path(target)
    _check_place(path, overwrite)
    if path.suffix.lower() == ".safetensors":
        if tile_px is not None or options:
            raise UserError(f"{path.name} holds the whole network: leave out the tile's width and options.")
        return _with_graphs(model, path, overwrite)
    _check_packages()
    found = models.opened(model)
    if found is None:
        raise UserError(f"{model} is a kind of detector, which has nothing to export; name a trained model.")
    if isinstance(found, OnnxModel):
        raise UserError(f"{model} is in ONNX already; name the .safetensors file that it was made of.")
    detector, network = _opened(found, options or {})
    if tile_px is not None and (tile_px < network.stride or tile_px % network.stride):
        raise UserError(
            f"A tile's width must be a multiple of {network.stride} px, the network's stride; got {tile_px}.",
            parameter="tile",
        )
    card = replace(found.card, graphs={})  # they are a bundle's
    if card.reach_px is None:  # measured once, by torch
        card = replace(card, reach_px="whole image" if network.reach_px is None else network.reach_px)
    facts = {
        KEY: card.to_json(),
        STRIDE_KEY: str(network.stride),
        **_for_deepness(card, detector, network, tile_px),
    }
    shown = len(card.classes) if "reg_output_scaling" in facts else None
    content = _in_onnx(network, len(card.bands), tile_px, facts, shown)
    difference, relative = _difference(content, network, card, tile_px, shown)
    if not relative <= MOST_OFF:
        raise UserError(
            f"'{card.name}' can't be exported: ONNX Runtime's answers differ from torch's by {relative:.2g}"
            f" of the largest value, and {MOST_OFF:g} is allowed."
        )
    try:
        write_whole(path, content, replace=overwrite)
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror or error}.") from error
    return Exported(path, len(content) / 1e6, difference, relative, tuple(_names(network)))


def _with_graphs(model: str | os.PathLike[str], path: Path, overwrite: bool) -> Exported:
    """Write a bundle again with the graphs of its network, so that it scans without torch."""
    check_installed("To give a model its graph", "torch", "onnxruntime")
    from ecodetect.runtime import tracing

    found = models.opened(model)
    if found is None or isinstance(found, OnnxModel):
        raise UserError(f"{model} is not a .safetensors model; only such a one can hold a graph.")
    kind = detectors.learned(found.card.detector)
    if not isinstance(kind, NetworkKind):
        raise UserError(f"'{found.card.name}' has no network, so it scans without torch as it is.")
    made, difference = tracing.with_graphs(found, lambda: kind.network(found.card, None))
    write(path, made, replace=overwrite)
    outputs = tuple(dict.fromkeys(name for graph in made.card.graphs.values() for name in graph.outputs))
    return Exported(path, path.stat().st_size / 1e6, difference, difference, outputs)


def _check_place(path: Path, overwrite: bool) -> None:
    if path.suffix.lower() not in (".onnx", ".safetensors"):
        raise UserError(f"A model is exported as .onnx or .safetensors; got {path.name}.")
    if not path.parent.is_dir():
        raise UserError(f"There is no folder {path.parent}.")
    if path.exists() and not overwrite:
        raise already_there(path)


def _check_packages() -> None:
    check_installed("To export a model", "torch", "onnx", "onnxruntime")


def _opened(bundle: Bundle, options: Mapping[str, str]) -> tuple[Detector, TorchNetwork]:
    """The detector of a bundle, and the network of its scans, on the CPU."""
    from ecodetect.runtime.torch_network import TorchNetwork

    card = replace(bundle.card, graphs={})  # torch's network is what is written down
    scene = Scene(card.bands, None, "float32", None)
    in_torch = Bundle(card, bundle.weights)
    detector = detectors.build(card.detector, scene, options, bundle=in_torch, device="cpu")
    look = detector.look if isinstance(detector, LearnedDetector) else None
    network = look.network if isinstance(look, NetworkLook) else None
    shape = card.options.get("network", {})
    if network is not None and isinstance(shape, Mapping) and shape.get("evaluation") == "windows":
        raise UserError(
            f"'{card.name}' evaluates each window alone, which ONNX can't hold; export a model that is"
            " evaluated dense."
        )
    if not isinstance(network, TorchNetwork):
        raise UserError(f"'{card.name}' can't be exported: {card.detector} isn't one network.")
    return detector, network


def _names(network: TorchNetwork) -> list[str]:
    return list(network.outputs) or ["output"]


def _in_onnx(
    network: TorchNetwork, bands: int, tile_px: int | None, facts: Mapping[str, str], shown: int | None
) -> bytes:
    """The file's content.

    shown : number of maps to output: the first ones, clipped to 0 to 1, because Deepness stores 8 bits. None:
        all outputs unchanged.

    torch's exporter by tracing: the one by `torch.export` takes a hundred times as long (trees: 166 s against
    2) and gives the same graph. The known fault of tracing, sizes that become constants, shows in the check,
    which runs at other sizes.
    """
    import onnx
    import torch

    side = tile_px or 4 * network.stride
    names = _names(network)
    sides: dict[str, dict[int, str]] = {}
    if tile_px is None:
        sides = {_INPUT: {0: "n", 2: "height", 3: "width"}}
        sides |= {name: {0: "n", 2: f"{name}_height", 3: f"{name}_width"} for name in names}
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            file = Path(folder) / "model.onnx"
            torch.onnx.export(
                _listed(network.module, shown), (torch.zeros(1, bands, side, side),), file,
                input_names=[_INPUT], output_names=names, dynamic_axes=sides,
                opset_version=OPSET, dynamo=False,
            )  # fmt: skip
            model = onnx.load(file)
    except Exception as error:  # of many types, depending on the network
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"torch can't write this network in ONNX: {first[:200].rstrip('.')}.") from error
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _listed(module: nn.Module, shown: int | None) -> nn.Module:
    """A module with a tuple as output, in usual memory order; the exporter can't take a traced one.

    shown : as in `_in_onnx`.
    """
    import copy

    import torch
    from torch import nn

    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = copy.deepcopy(module).to(memory_format=torch.contiguous_format)

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            out = self.network(image)
            maps = (out,) if isinstance(out, torch.Tensor) else tuple(out)
            return maps if shown is None else tuple(each[:, :shown].clamp(0.0, 1.0) for each in maps)

    return Listed().eval()


def _difference(
    content: bytes, network: TorchNetwork, card: Card, tile_px: int | None, shown: int | None
) -> tuple[float, float]:
    """The largest difference between ONNX Runtime and torch on noise, and as a share of the largest value."""
    from ecodetect.runtime.onnx_network import open_session

    stride = network.stride
    shape = (1, tile_px, tile_px) if tile_px is not None else (2, 5 * stride, 7 * stride)
    noise = np.random.default_rng(0).normal(0.5, 0.5, (shape[0], len(card.bands), *shape[1:]))
    batch = noise.astype(np.float32)
    wanted = network.run(batch)
    if shown is not None:
        wanted = [np.clip(each[:, :shown], 0.0, 1.0) for each in wanted]
    session, _ = open_session(content, card.name, device="cpu")
    try:
        found = session.run(None, {_INPUT: batch})
    except Exception as error:  # ONNX Runtime has a dozen kinds, without a common root
        raise UserError(f"'{card.name}' can't be exported: ONNX Runtime fails on other sizes.") from error
    worst = relative = 0.0
    for one, two in zip(wanted, found, strict=True):
        off = _off(one, two)
        worst, relative = max(worst, off), max(relative, off / max(float(np.abs(one).max()), 1e-6))
    return worst, relative


def _off(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    """The largest difference; infinite if the shapes differ or a value isn't finite."""
    if one.shape != two.shape:
        return math.inf
    off = float(np.abs(one - two).max())
    return off if math.isfinite(off) else math.inf


def _for_deepness(
    card: Card, detector: Detector, network: TorchNetwork, tile_px: int | None
) -> dict[str, str]:
    """Facts about the model, under the names that Deepness reads; values are JSON.

    One map per class is its "Regressor", which needs one image of a fixed side and draws 0 to 255. Our boxes
    are raw outputs, which its "Detector" doesn't support, so they get no model_type.
    """
    needs = detector.needs
    facts: dict[str, Any] = {}
    outputs = list(network.outputs.values())
    if tile_px is not None and len(outputs) == 1 and outputs[0][1] == 1 and detector.kind == "point":
        facts |= {"model_type": "Regressor", "reg_output_scaling": 255.0}
    facts["class_names"] = {str(number): name for number, name in enumerate(card.classes)}
    if card.gsd_m is not None:
        facts["resolution"] = float(f"{100 * card.gsd_m:.9g}")  # centimetres per pixel
    if card.scaling.mode == "fixed":  # Deepness first divides by 255
        facts["standardization_mean"] = [value / 255 for value in card.scaling.offset]
        facts["standardization_std"] = [value / 255 for value in card.scaling.span]
    if tile_px is not None:
        seen = 2 * needs.reach_px + needs.largest_px
        facts |= {"tile_size": tile_px, "tiles_overlap": min(90, math.ceil(100 * seen / tile_px))}
    if detector.kind == "box":
        if needs.scores:
            facts["det_conf"] = min(needs.scores)
        suppression = detector.settings.get("suppression")
        if suppression is not None:
            facts["det_iou_thresh"] = suppression
    return {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()}

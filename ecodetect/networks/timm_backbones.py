"""Networks of timm as encoders: all that give features at several strides.

timm itself says where their features are (`features_only`), so no family of networks is known here. A name is
looked up among those of the installed timm and nothing is ever downloaded. TensorFlow's SAME padding, which
depends on the side of an image, is made one that doesn't: for sides that are multiples of the stride, which
all of ours are, both are the same, and so a pixel's answer is in each tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ecodetect.errors import UserError
from ecodetect.extras import TIMM, check_installed
from ecodetect.networks.network import Encoder, Weights
from ecodetect.networks.weights import for_bands, load

_PROBE_PX = (128, 192)  # sides of the image that strides are measured on


def names() -> list[str]:
    """All networks of the installed timm, without the prefix; raises PackageError where there is none."""
    found: list[str] = _timm(f"A backbone named {TIMM}…").list_models()
    return found


def _timm(who: str) -> Any:
    check_installed(who, "timm")
    with torch.device("cpu"):  # a bundle's network is first built without values; timm's constants need them
        import timm
    return timm


def check_known(name: str) -> None:
    """Raise UserError unless the installed timm has a network of this name, which begins with the prefix."""
    own, known = name.removeprefix(TIMM), names()
    if own in known:
        return
    near = get_close_matches(own.partition(".")[0], known, n=3)
    hint = f"did you mean {' or '.join(TIMM + each for each in near)}?" if near else "see its list_models()."
    raise UserError(f"timm has no network named '{own}'; {hint}", parameter="backbone")


class TimmEncoder(Encoder):
    """A network of timm up to the features of its last stride.

    network : timm's, without what comes after these.
    places : which of its features are used, as timm counts them.
    marks : the parts of the network that they come from, by name.
    """

    def __init__(
        self, network: nn.Module, places: Sequence[int], marks: Sequence[str], strides: Sequence[int]
    ) -> None:
        super().__init__()
        self.network = network
        self.places, self.marks, self.strides = list(places), list(marks), list(strides)

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        forward: Any = self.network.forward_intermediates
        return list(forward(x, indices=self.places, output_fmt="NCHW", intermediates_only=True))

    def in_stages(self) -> list[nn.Module]:
        parts: list[tuple[str, nn.Module]] = []
        for name, part in self.network.named_children():
            if isinstance(part, nn.Sequential | nn.ModuleList) and name not in self.marks:
                parts += [(f"{name}.{key}", each) for key, each in part.named_children()]
            else:
                parts.append((name, part))
        found: list[nn.Module] = []
        begin = 0
        for mark in self.marks:
            ends = [place + 1 for place, (name, _) in enumerate(parts) if f"{mark}.".startswith(f"{name}.")]
            end = len(parts) if mark == self.marks[-1] else max([begin, *ends])
            found.append(nn.ModuleList(part for _, part in parts[begin:end]))
            begin = end
        return found


def encoder(
    name: str, weights: Weights | None, bands: Sequence[str], *, depth: int, is_most: bool
) -> TimmEncoder:
    """The network `name`, which begins with the prefix, up to the stride 2**depth.

    weights : in timm's naming; None: random.  The rest as in `backbones.encoder`.
    Raises UserError for a name that timm doesn't know, and for a network without such features.
    """
    check_known(name)
    try:
        whole = _timm(name).create_model(
            name.removeprefix(TIMM),
            pretrained=False,
            features_only=True,
            feature_cls="getter",
            in_chans=len(bands),
        )
        network, indices = whole.model, list(whole.out_indices)
        marks, reductions = whole.feature_info.module_name(), whole.feature_info.reduction()
    except Exception as error:  # as many kinds as there are networks that give no features
        raise UserError(f"'{name}' can't be an encoder: timm gives no features of it.") from error
    last = {stride: number for number, stride in enumerate(reductions)}
    if is_most:
        depth = min(depth, max(last).bit_length() - 1)
    strides = sorted(stride for stride in last if stride <= 2**depth)
    if 2**depth not in strides or any(stride.bit_count() > 1 for stride in strides):
        there = ", ".join(map(str, sorted(last)))
        raise UserError(f"'{name}' has no features at stride {2**depth}; it has them at {there}.")
    used = [last[stride] for stride in strides]
    places = network.prune_intermediate_layers([indices[number] for number in used], prune_head=True)
    if weights is not None:
        load(network, _for_bands_of(network, weights, bands), name)
    _make_plain(network)
    found = TimmEncoder(network, places, [marks[number] for number in used], strides)
    found.channels = _probed(found, len(bands), name)
    return found


def _for_bands_of(network: nn.Module, weights: Weights, bands: Sequence[str]) -> Weights:
    """The weights with those of the first convolution for these bands."""
    key, first = next(
        (f"{key}.weight", part) for key, part in network.named_modules() if isinstance(part, nn.Conv2d)
    )
    if key not in weights or first.in_channels != len(bands):
        return weights
    return {**weights, key: for_bands(torch.as_tensor(weights[key]), bands)}


def _probed(encoder: TimmEncoder, bands: int, name: str) -> list[int]:
    """Channels of its features, measured with an empty image that isn't square."""
    encoder.eval()
    try:
        with torch.no_grad():
            found = encoder.features(torch.zeros(1, bands, *_PROBE_PX))
    except Exception as error:  # networks made for one size say so in as many ways
        shape = " x ".join(map(str, _PROBE_PX))
        raise UserError(f"'{name}' can't be an encoder: it doesn't take images of {shape} px.") from error
    encoder.train()
    for stride, each in zip(encoder.strides, found, strict=True):
        if each.shape[2:] != tuple(side // stride for side in _PROBE_PX):
            raise UserError(f"'{name}' can't be an encoder: its features don't line up with the image.")
    return [int(each.shape[1]) for each in found]


def _make_plain(network: nn.Module) -> None:
    """Replace timm's layers by torch's where it has the same, so that they are folded as all others are."""
    from timm.layers.conv2d_same import Conv2dSame
    from timm.layers.norm_act import BatchNormAct2d
    from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame

    padded = {Conv2dSame: nn.Conv2d, AvgPool2dSame: nn.AvgPool2d, MaxPool2dSame: nn.MaxPool2d}
    for parent in list(network.modules()):
        for key, layer in list(parent.named_children()):
            # timm's are made from torch's, with another `forward`.
            if type(layer) is BatchNormAct2d:
                rest = layer.drop, layer.act
                del layer.drop, layer.act
                layer.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
                parent.add_module(key, nn.Sequential(layer, *rest))
            elif type(layer) in padded:
                value = -math.inf if type(layer) is MaxPool2dSame else 0.0
                layer.__class__ = padded[type(layer)]
                parent.add_module(key, nn.Sequential(_beyond(layer, value), layer))


def _beyond(layer: Any, value: float) -> _Padding:
    """What SAME padding adds to sides that are multiples of the layer's stride; the odd pixel at the end."""
    apart = getattr(layer, "dilation", (1, 1))
    down, across = (
        max((size - 1) * each + 1 - step, 0)
        for size, step, each in zip(layer.kernel_size, layer.stride, apart, strict=True)
    )
    return _Padding((across // 2, across - across // 2, down // 2, down - down // 2), value)


class _Padding(nn.Module):
    """Adds `value` at the left, right, top and bottom."""

    def __init__(self, sides: tuple[int, int, int, int], value: float) -> None:
        super().__init__()
        self.sides, self.value = sides, value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.onnx.is_in_onnx_export():
            found: torch.Tensor = _Padded.apply(x, self.sides, self.value)
            return found
        return functional.pad(x, self.sides, value=self.value)


class _Padded(torch.autograd.Function):
    """Padding as one operator in ONNX; torch writes twenty, which work out constants."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, sides: tuple[int, int, int, int], value: float) -> torch.Tensor:
        return functional.pad(x, sides, value=value)

    @staticmethod
    def symbolic(g: Any, x: Any, sides: tuple[int, int, int, int], value: float) -> Any:
        left, right, top, bottom = sides
        places = torch.tensor([0, 0, top, left, 0, 0, bottom, right])
        constants = (g.op("Constant", value_t=each) for each in (places, torch.tensor(value)))
        return g.op("Pad", x, *constants, mode_s="constant")

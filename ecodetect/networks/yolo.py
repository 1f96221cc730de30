"""An anchor-free one-stage network: a backbone, a neck that mixes strides both ways, and two heads.

Sources: CSPNet (Wang et al. 2020, arXiv:1911.11929) for the blocks whose parts skip each other, PANet (Liu et
al. 2018, arXiv:1803.01534) for the neck, YOLOX (Ge et al. 2021, arXiv:2107.08430) for box and class apart
and no anchors, generalised focal loss (Li et al. 2020, arXiv:2006.04388) for edges as distributions, YOLOv10
(Wang et al. 2024, arXiv:2405.14458) for a second head that is taught one box an object, beside the usual one
that is taught several. What comes out is raw; `detectors.yolo` reads it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from ecodetect.networks.backbones import encoder as of_torchvision
from ecodetect.networks.network import Encoder, Part, Settings, TrainableNetwork, Weights

BINS = 16  # of the distance from a place to each edge of a box, in strides
# Share of the channels and of the blocks of the largest network of this kind.
SIZES: Mapping[str, tuple[float, float]] = {
    "nano": (0.25, 0.34),
    "small": (0.5, 0.34),
    "medium": (0.75, 0.67),
}
_WIDTHS = {2: 64, 4: 128, 8: 256, 16: 512, 32: 1024}  # of the largest, at each stride
_BLOCKS = {4: 3, 8: 6, 16: 6, 32: 3}
_USUAL_PX = 64.0  # objects of about this size are what the heads first expect to be rare


def _convolution(inside: int, outside: int, size: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outside, eps=1e-3, momentum=0.03),
        nn.SiLU(inplace=True),
    )


class Bottleneck(nn.Module):
    """Two convolutions, added to what went in if `is_added`."""

    def __init__(self, channels: int, *, is_added: bool) -> None:
        super().__init__()
        self.one, self.two = _convolution(channels, channels, 3), _convolution(channels, channels, 3)
        self.is_added = is_added

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.two(self.one(x))
        return x + out if self.is_added else out


class CrossStage(nn.Module):
    """One half goes by, the other through blocks; the result of each block is kept (CSP)."""

    def __init__(self, inside: int, outside: int, blocks: int, *, is_added: bool) -> None:
        super().__init__()
        self.wide = outside // 2
        self.split = _convolution(inside, 2 * self.wide)
        self.blocks = nn.ModuleList(Bottleneck(self.wide, is_added=is_added) for _ in range(blocks))
        self.join = _convolution((2 + blocks) * self.wide, outside)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.split(x).split(self.wide, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        out: torch.Tensor = self.join(torch.cat(parts, 1))
        return out


class Surroundings(nn.Module):
    """What lies around, at three distances: maxima of maxima (He et al. 2015, arXiv:1406.4729, made fast)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.narrow, self.join = _convolution(channels, half), _convolution(4 * half, channels)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.narrow(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        out: torch.Tensor = self.join(torch.cat(parts, 1))
        return out


class Backbone(Encoder):
    """Learned from scratch, down to the stride of the last level.

    size : "nano", "small", "medium".
    stages : applied one after the other, each ending at the next stride.
    """

    def __init__(self, size: str, bands: int, last: int) -> None:
        super().__init__()
        wide, deep = SIZES[size]
        self.strides = [stride for stride in _WIDTHS if stride <= last]
        self.channels = [_width(stride, wide) for stride in self.strides]
        self.stages = nn.ModuleList()
        inside = bands
        for stride, outside in zip(self.strides, self.channels, strict=True):
            parts: list[nn.Module] = [_convolution(inside, outside, 3, 2)]
            if stride in _BLOCKS:
                parts.append(CrossStage(outside, outside, round(_BLOCKS[stride] * deep), is_added=True))
            if stride == last:
                parts.append(Surroundings(outside))
            self.stages.append(nn.Sequential(*parts))
            inside = outside

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def in_stages(self) -> list[nn.Module]:
        return list(self.stages)


def _width(stride: int, share: float) -> int:
    return max(16, int(_WIDTHS[stride] * share) // 8 * 8)


class Neck(nn.Module):
    """From coarse to fine and back again: each level knows what the others see."""

    def __init__(self, inside: Sequence[int], channels: Sequence[int], blocks: int) -> None:
        super().__init__()
        count = len(channels)
        self.narrow = nn.ModuleList(_convolution(a, b) for a, b in zip(inside, channels, strict=True))
        self.up = nn.ModuleList(
            CrossStage(channels[level + 1] + channels[level], channels[level], blocks, is_added=False)
            for level in reversed(range(count - 1))
        )
        self.down = nn.ModuleList(
            _convolution(channels[level], channels[level], 3, 2) for level in range(count - 1)
        )
        self.back = nn.ModuleList(
            CrossStage(channels[level] + channels[level + 1], channels[level + 1], blocks, is_added=False)
            for level in range(count - 1)
        )

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """features : of each level, from fine to coarse."""
        found = [narrow(each) for narrow, each in zip(self.narrow, features, strict=True)]
        for number, join in enumerate(self.up):
            level = len(found) - 2 - number
            finer = functional.interpolate(found[level + 1], scale_factor=2.0, mode="nearest")
            found[level] = join(torch.cat([finer, found[level]], 1))
        for level, (down, join) in enumerate(zip(self.down, self.back, strict=True)):
            found[level + 1] = join(torch.cat([down(found[level]), found[level + 1]], 1))
        return found


class Head(nn.Module):
    """For each place of a level 4 x BINS numbers about the edges of its box, then one for each class."""

    def __init__(self, channels: Sequence[int], classes: int, strides: Sequence[int]) -> None:
        super().__init__()
        edge, kind = max(16, channels[0] // 4, 4 * BINS), max(channels[0], min(classes, 100))
        self.edges = nn.ModuleList(
            nn.Sequential(
                _convolution(inside, edge, 3), _convolution(edge, edge, 3), nn.Conv2d(edge, 4 * BINS, 1)
            )
            for inside in channels
        )
        self.kinds = nn.ModuleList(
            nn.Sequential(
                _convolution(inside, inside, 3, groups=inside),
                _convolution(inside, kind),
                _convolution(kind, kind, 3, groups=kind),
                _convolution(kind, kind),
                nn.Conv2d(kind, classes, 1),
            )
            for inside in channels
        )
        for edges, kinds, stride in zip(self.edges, self.kinds, strides, strict=True):
            _begin(edges, 1.0)
            # Few places have an object; a network that has learned nothing should say so.
            _begin(kinds, math.log(0.5 / classes * (stride / _USUAL_PX) ** 2))

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [
            torch.cat([edges(each), kinds(each)], 1)
            for edges, kinds, each in zip(self.edges, self.kinds, features, strict=True)
        ]


def _begin(branch: nn.Module, value: float) -> None:
    """Let a branch begin by answering a value."""
    last = list(branch.modules())[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    nn.init.constant_(last.bias, value)


class Yolo(TrainableNetwork):
    """Backbone, neck and two heads.

    encoder : gives features of several strides; see `network.Encoder`.
    strides : of the levels on which objects are looked for, ascending.
    size : of neck and heads.
    widest : the stride whose width no level of neck and heads exceeds.
    answers : the heads asked, in this order: "one" is taught one box an object, "many" several.
    forward : (N, B, H, W) to (N, 4 · BINS + K, H / stride, W / stride) for each level of each head asked.
    """

    def __init__(
        self,
        encoder: Encoder,
        classes: int,
        *,
        strides: Sequence[int],
        size: str = "nano",
        widest: int = 32,
        answers: Sequence[Literal["one", "many"]] = ("one", "many"),
    ) -> None:
        super().__init__()
        wide, deep = SIZES[size]
        self.encoder = encoder
        self.places = [encoder.strides.index(stride) for stride in strides]
        channels = [_width(min(stride, widest), wide) for stride in strides]
        self.neck = Neck([encoder.channels[p] for p in self.places], channels, max(1, round(3 * deep)))
        self.one, self.many = Head(channels, classes, strides), Head(channels, classes, strides)
        self.answers = tuple(answers)
        self.strides = tuple(strides)
        self.stride = strides[-1]

    def parts(self) -> Mapping[str, Part]:
        names = tuple(f"{answer}_{stride}" for answer in self.answers for stride in self.strides)
        return {"image": Part(self, names)}

    def backbone(self) -> Encoder:
        return self.encoder

    def stages(self) -> Sequence[nn.Module]:
        return self.encoder.in_stages()

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = self.encoder.features(x)
        features = self.neck([found[place] for place in self.places])
        out: list[torch.Tensor] = []
        for answer in self.answers:
            if answer == "many":
                out += self.many(features)
            else:
                # What the one learns mustn't spoil what the many need: it only reads the features.
                out += self.one([each.detach() for each in features])
        return out


def build(
    settings: Settings,
    bands: Sequence[str],
    classes: int,
    weights: Weights | None = None,
    *,
    answers: Sequence[Literal["one", "many"]] = ("one", "many"),
) -> Yolo:
    """The network that `settings` describe.

    settings : kind ("nano", "small", "medium", or the name of a backbone), strides of the levels;
        size (of neck and heads) for a backbone.
    bands : names, in the order of the input.
    weights : of the backbone.
    Raises UserError for an unknown kind.
    """
    kind, strides = str(settings["kind"]), [int(stride) for stride in settings["strides"]]
    if kind in SIZES:
        own = Backbone(kind, len(bands), strides[-1])
        return Yolo(own, classes, strides=strides, size=kind, answers=answers)
    encoder = of_torchvision(kind, weights, bands, depth=strides[-1].bit_length() - 1)
    size = str(settings.get("size", "nano"))
    # Twice the width at stride 32 would be a third of all weights, for features that ImageNet has taught.
    return Yolo(encoder, classes, strides=strides, size=size, widest=16, answers=answers)

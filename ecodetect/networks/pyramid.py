"""A feature pyramid on a backbone: features at each stride, with the receptive field of the coarsest.

Source: Lin et al. 2017 (arXiv:1612.03144), with a batch normalisation after each convolution, so that it is
learned from scratch too. Levels coarser than the backbone has are halved on, as Lin et al. 2017b
(arXiv:1708.02002) do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from ecodetect.networks.backbones import encoder
from ecodetect.networks.network import Encoder, Settings, Weights


def _convolution(inside: int, outside: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, size, stride, size // 2, bias=False), nn.BatchNorm2d(outside)
    )


class Pyramid(nn.Module):
    """From fine to coarse through the encoder and back again.

    encoder : its features are used from the finest level on, also those coarser than any level.
    strides : of the levels, ascending, each twice the one before.
    out_channels : of each level.
    stride : sides of images are multiples of it.
    forward : (N, B, H, W) to {"0": (N, out_channels, H / stride, W / stride), "1": …}, from fine to coarse.
    """

    def __init__(self, encoder: Encoder, strides: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.out_channels = out_channels
        self.stride = max(encoder.strides[-1], strides[-1])
        self.places = [place for place, stride in enumerate(encoder.strides) if stride >= strides[0]]
        self.narrow = nn.ModuleList(
            _convolution(encoder.channels[place], out_channels, 1) for place in self.places
        )
        self.inside = sum(stride <= encoder.strides[-1] for stride in strides)
        self.smooth = nn.ModuleList(_convolution(out_channels, out_channels, 3) for _ in range(self.inside))
        self.halve = nn.ModuleList(
            _convolution(out_channels, out_channels, 3, 2) for _ in strides[self.inside :]
        )

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.encoder.features(x)
        features = [narrow(found[place]) for narrow, place in zip(self.narrow, self.places, strict=True)]
        for level in reversed(range(len(features) - 1)):
            finer = functional.interpolate(features[level + 1], scale_factor=2.0, mode="nearest")
            features[level] = features[level] + finer
        levels = [smooth(each) for smooth, each in zip(self.smooth, features[: self.inside], strict=True)]
        for halve in self.halve:
            levels.append(halve(functional.relu(levels[-1])))
        return {str(number): each for number, each in enumerate(levels)}


def build(settings: Settings, bands: Sequence[str], weights: Weights | None) -> Pyramid:
    """The pyramid that `settings` describe.

    settings : kind (name of a backbone), strides of the levels, coarsest (stride down to which
        the backbone is used, if it goes so far), width (channels of each level).
    bands : names, in the order of the input.
    weights : of the backbone; None: random.
    Raises UserError for an unknown backbone.
    """
    depth = int(settings["coarsest"]).bit_length() - 1
    strides = [int(stride) for stride in settings["strides"]]
    row = encoder(str(settings["kind"]), weights, bands, depth=depth, is_most=True)
    return Pyramid(row, strides, int(settings["width"]))

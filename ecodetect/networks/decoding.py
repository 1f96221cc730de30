"""The decoder of a U-Net: from coarse features to a map as fine as the image, with skip connections.

Source: U-Net, Ronneberger, Fischer, Brox 2015 (doi:10.1007/978-3-319-24574-4_28). Unlike there, features
are enlarged by repeating them after a 1 x 1 convolution (a transposed one leaves checkerboards: Odena et al.
2016, doi:10.23915/distill.00003), convolutions have padding, and each decoder level has one, for speed. A map
finer than the finest features is computed from them by sub-pixel convolution
( Shi et al. 2016, arXiv:1609.05158).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional


def convolution(inside: int, outside: int, size: int = 3) -> nn.Sequential:
    """A convolution with batch normalisation and ReLU, as large as its input."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, size, padding=size // 2, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


def stem(bands: int, outside: int, stride: int) -> nn.Sequential:
    """Features of the image itself, at each of its pixels, or at every second (`stride` 2)."""
    if stride == 1:
        return convolution(bands, outside)
    return nn.Sequential(
        nn.Conv2d(bands, outside, 6, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


class Decoder(nn.Module):
    """Turns features, from fine to coarse, into maps.

    channels : of the features, each half as fine as those before; 0 where the encoder has none.
    width : channels of the finest level; each coarser one has twice as many.
    finer : pixels of the maps per pixel of the finest features, along an axis.
    """

    def __init__(self, channels: Sequence[int], out_maps: int, *, width: int, finer: int = 1) -> None:
        super().__init__()
        self.narrow, self.join = nn.ModuleList(), nn.ModuleList()
        below = channels[-1]
        for level in range(len(channels) - 2, -1, -1):
            mine = width * 2**level
            self.narrow.append(convolution(below, mine, 1))
            self.join.append(convolution(mine + channels[level], mine))
            below = mine
        self.head = nn.Conv2d(below, out_maps * finer**2, 1)
        self.spread = nn.PixelShuffle(finer)

    def forward(self, features: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """features : from fine to coarse; None where the encoder has none."""
        x = features[-1]
        assert x is not None
        for narrow, join, skip in zip(self.narrow, self.join, reversed(features[:-1]), strict=True):
            x = functional.interpolate(narrow(x), scale_factor=2.0, mode="nearest")
            x = join(x if skip is None else torch.cat([x, skip], 1))
        out: torch.Tensor = self.spread(self.head(x))
        return out

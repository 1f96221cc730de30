"""The way back from coarse features to a map as fine as the image, with what the encoder saw on the way.

Source: U-Net, Ronneberger, Fischer, Brox 2015 (doi:10.1007/978-3-319-24574-4_28). Unlike there, features
are enlarged by repeating them after a 1 x 1 convolution (a transposed one leaves checkerboards: Odena et al.
2016, doi:10.23915/distill.00003), convolutions are padded, and each level of the way back has one, for speed.
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


class Decoder(nn.Module):
    """Features from fine to coarse become maps.

    channels : of the features at strides 1, 2, 4, …; 0 where the encoder has none.
    width : channels of the finest level; each coarser one has twice as many, at most those of its features.
    """

    def __init__(self, channels: Sequence[int], out_maps: int, *, width: int, up: int = 1) -> None:
        super().__init__()
        if up not in (1, 2):
            raise ValueError(f"output pixels per input pixel must be 1 or 2, not {up}")
        self.up = up
        self.narrow, self.join = nn.ModuleList(), nn.ModuleList()
        below = channels[-1]
        for level in range(len(channels) - 2, -1, -1):
            mine = width * 2**level
            self.narrow.append(convolution(below, mine, 1))
            self.join.append(convolution(mine + channels[level], mine))
            below = mine
        self.finer = convolution(below, below) if up == 2 else None
        self.head = nn.Conv2d(below, out_maps, 1)

    def forward(self, features: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """features : at strides 1, 2, 4, …; None where the encoder has none."""
        x = features[-1]
        assert x is not None
        for narrow, join, skip in zip(self.narrow, self.join, reversed(features[:-1]), strict=True):
            x = functional.interpolate(narrow(x), scale_factor=2.0, mode="nearest")
            x = join(x if skip is None else torch.cat([x, skip], 1))
        if self.finer is not None:
            x = self.finer(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        out: torch.Tensor = self.head(x)
        return out

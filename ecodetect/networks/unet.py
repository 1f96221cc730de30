"""A small U-Net, learned from scratch.

Source: Ronneberger, Fischer, Brox 2015 (doi:10.1007/978-3-319-24574-4_28), with batch normalisation and
padded convolutions. It is local: nothing in it sees the whole image (no global pooling, no normalisation by
group).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ecodetect.networks.decoding import Decoder, convolution, stem
from ecodetect.networks.network import TrainableNetwork


class UNet(TrainableNetwork):
    """Encoder down to a stride of 2**depth, two convolutions a level, and a decoder with one a level.

    width : channels at full resolution; doubled with each halving. 16 and depth 3: 0.40 million parameters.
    finest : stride of the finest features, 1 or 2. At 2 all is more than twice as fast; objects a few pixels
        wide and close to each other need 1.
    up : output pixels per input pixel along an axis.
    """

    def __init__(
        self, in_bands: int, out_maps: int, *, width: int = 16, depth: int = 3, finest: int = 1, up: int = 1
    ) -> None:
        super().__init__()
        width *= finest
        widths = [width * 2**level for level in range(depth + 2 - finest)]
        self.levels = nn.ModuleList(
            nn.Sequential(
                stem(in_bands, here, finest) if number == 0 else convolution(widths[number - 1], here),
                convolution(here, here),
            )
            for number, here in enumerate(widths)
        )
        self.halve = nn.MaxPool2d(2)
        self.decoder = Decoder(widths, out_maps, width=width, finer=finest * up)
        self.stride = 2**depth

    def stages(self) -> Sequence[nn.Module]:
        return list(self.levels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [self.levels[0](x)]
        for level in self.levels[1:]:
            features.append(level(self.halve(features[-1])))
        out: torch.Tensor = self.decoder(features)
        return out

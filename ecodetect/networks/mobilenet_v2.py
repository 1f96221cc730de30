"""MobileNetV2 up to its pooling: the encoder of our models, so that scans don't import torchvision (5 s).

Source: Sandler, Howard, Zhu, Zhmoginov, Chen 2018 (arXiv:1801.04381), table 2. Layers are numbered and named
as in torchvision, so its weights fit, and bundles are the same for both.
"""

from __future__ import annotations

import torch
from torch import nn

# Table 2: expansion t, channels c, repetitions n, stride s.
_BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_FIRST, _LAST = 32, 1280


def _convolution(inside: int, outside: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """Widened, filtered channel by channel, narrowed again (figure 3); added to its input where it fits."""

    def __init__(self, inside: int, outside: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inside * expansion
        self.is_added = stride == 1 and inside == outside
        self.conv = nn.Sequential(
            *([] if expansion == 1 else [_convolution(inside, wide, 1)]),
            _convolution(wide, wide, 3, stride, groups=wide),
            nn.Conv2d(wide, outside, 1, bias=False),
            nn.BatchNorm2d(outside),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x : (N, inside, H, W). Returns (N, outside, H / stride, W / stride)."""
        out: torch.Tensor = self.conv(x)
        return x + out if self.is_added else out


class MobileNetV2(nn.Module):
    """With random weights, as torchvision draws them.

    features : (N, 3, H, W) to (N, 1280, H / 32, W / 32).
    steps : stride and channels of what each of its parts gives.
    """

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = [_convolution(3, _FIRST, 3, 2)]
        inside, coarse = _FIRST, 2
        self.steps = [(coarse, inside)]
        for expansion, channels, count, stride in _BLOCKS:
            for number in range(count):
                parts.append(InvertedResidual(inside, channels, stride if number == 0 else 1, expansion))
                inside, coarse = channels, coarse * (stride if number == 0 else 1)
                self.steps.append((coarse, inside))
        parts.append(_convolution(inside, _LAST, 1))
        self.steps.append((coarse, _LAST))
        self.features = nn.Sequential(*parts)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")

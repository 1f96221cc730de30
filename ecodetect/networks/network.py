"""What training, scanning and exporting may ask of a torch module; every network of a detector is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

Settings = Mapping[str, Any]  # of a network, as a card holds them: numbers, words, lists
Weights = Mapping[str, Any]  # name -> tensor or array


class TrainableNetwork(nn.Module):
    """A torch module (N, B, H, W) -> tensor, or several, with what else is to be known of it.

    stride : sides of images are multiples of it, and so are shifts that change nothing.
    reach_px : how far from a pixel its answer depends on others, where that is known; None: to be measured.
    sees_all : it compares what it found all over an image, so its answers depend on the whole image.
    takes_targets : while training it is given the targets too, and answers with losses by name.
    works_out_places : it computes positions in pixels, which 16 bits are too few for.
    """

    stride: int = 1
    reach_px: int | None = None
    sees_all = False
    takes_targets = False
    works_out_places = False

    def backbone(self) -> nn.Module | None:
        """The encoder, which may have learned elsewhere: it is then trained more slowly."""
        return None

    def stages(self) -> Sequence[nn.Module]:
        """What can be kept as it is while the rest is trained, from the image on."""
        return ()

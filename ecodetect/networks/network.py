"""What training, scanning and exporting may ask of a torch module; every network of a detector is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Settings = Mapping[str, Any]  # of a network, as a card holds them: numbers, words, lists
Weights = Mapping[str, Any]  # name -> tensor or array


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a network that a bundle stores as a graph: convolutions and the like, from image to maps.

    forward : (N, C, H, W) -> one tensor, or several.
    outputs : their names, in order.
    channels : C; None: the bands of the image.
    side : H and W of an example; sides are multiples of the network's stride.
    is_fixed : the sides are always these.
    """

    forward: Callable[[Tensor], Tensor | Sequence[Tensor]]
    outputs: tuple[str, ...]
    channels: int | None = None
    side: int | None = None
    is_fixed: bool = False


class Encoder(nn.Module):
    """The part of a network that turns an image into features, at several strides.

    strides, channels : of the features that it gives; strides are powers of 2, ascending.
    """

    strides: Sequence[int]
    channels: Sequence[int]

    def features(self, x: Tensor) -> list[Tensor]:
        """What it gives at each stride, (N, channels, H / stride, W / stride), from fine to coarse."""
        raise NotImplementedError

    def in_stages(self) -> list[nn.Module]:
        """Its parts, from stride to stride."""
        raise NotImplementedError


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

    def parts(self) -> Mapping[str, Part]:
        """What runs without torch: name -> part. What lies between them is computed in numpy."""
        return {"image": Part(self, ("maps",))}

    def backbone(self) -> Encoder | None:
        """The encoder, which may have learned elsewhere: it is then trained more slowly."""
        return None

    def stages(self) -> Sequence[nn.Module]:
        """What can be kept as it is while the rest is trained, from the image on."""
        return ()

"""Networks: torch modules only, built from the plain settings that a card holds.

`unet` is small and learned from scratch; `backbones` are classification networks of others as encoders;
`decoding` is the half that both share, from coarse features back to a map.
"""

from __future__ import annotations

from collections.abc import Sequence

from ecodetect.errors import UserError
from ecodetect.networks.network import Settings, TrainableNetwork, Weights


def build(
    settings: Settings, bands: Sequence[str], out_maps: int, weights: Weights | None = None
) -> TrainableNetwork:
    """The network that `settings` describe, with random weights, or with a pretrained backbone as encoder.

    settings : kind ("unet" or the name of a backbone), width (channels at full resolution), depth (the stride
        is 2**depth), finest (stride of the finest features, 1 or 2), up (output pixels per input pixel along
        an axis).
    bands : names, in the order of the input.
    weights : of the backbone; see `backbones.pretrained`.
    The module takes (N, B, H, W) with sides that are multiples of the stride and gives one tensor
    (N, out_maps, H·up, W·up).
    Raises UserError for an unknown kind.
    """
    kind = settings["kind"]
    width, depth = int(settings["width"]), int(settings["depth"])
    shape = {"width": width, "finest": int(settings.get("finest", 1)), "up": int(settings["up"])}
    if kind == "unet":
        if weights is not None:
            raise UserError("The network 'unet' is learned from scratch: there are no pretrained weights.")
        from ecodetect.networks.unet import UNet

        return UNet(len(bands), out_maps, depth=depth, **shape)
    from ecodetect.networks.backbones import EncoderDecoder, encoder

    return EncoderDecoder(encoder(kind, weights, bands, depth=depth), out_maps, **shape)

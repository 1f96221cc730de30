"""Classification networks as encoders, by name, with the decoder of a U-Net on top.

A network of torchvision is used as a sequence of its parts up to the global pooling, with features taken
before each halving. This works for sequential networks (ResNet, MobileNet, EfficientNet, SqueezeNet, VGG,
DenseNet, RegNet, ConvNeXt, …), and is refused in one sentence for others (transformers). Networks in `_OWN`
are built without importing torchvision. Those of timm, whose names begin with "timm/", are in
`timm_backbones`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from ecodetect.errors import UserError
from ecodetect.extras import TIMM
from ecodetect.networks.decoding import Decoder, convolution
from ecodetect.networks.mobilenet_v2 import MobileNetV2
from ecodetect.networks.network import Encoder, TrainableNetwork, Weights
from ecodetect.networks.weights import VARIABLE, for_bands, from_file, load, of_backbone, stored

_PROBE_PX = 128  # sides of the images that strides are measured on
_ENDS = ("avgpool", "classifier", "fc", "head")  # where the features end and the classification begins
_OWN = {"mobilenet_v2": MobileNetV2}
# GoogLeNet has classifiers half-way, for training alone.
_BUILT_WITH: Mapping[str, Mapping[str, Any]] = {"googlenet": {"aux_logits": False, "init_weights": False}}
# torchvision's detectors of COCO's objects on these backbones, and what it calls a backbone inside.
_COCO = {"resnet50": "fasterrcnn_resnet50_fpn", "mobilenet_v3_large": "fasterrcnn_mobilenet_v3_large_fpn"}


def names() -> list[str]:
    """All backbones: torchvision's classification networks, except transformers."""
    from torchvision import models

    module = "torchvision.models."
    return sorted(
        name
        for name in models.list_models(module=models)
        if not name.startswith(("vit", "swin", "maxvit", "inception"))
        and models.get_model_builder(name).__module__.startswith(module)
    )


def pretrained(name: str, of: Literal["imagenet", "coco"] = "imagenet") -> dict[str, Any]:
    """Weights of a backbone, in torchvision's naming, or, of a network of timm, in timm's.

    of : "imagenet": a classifier's; "coco": the backbone's in torchvision's detector of COCO's objects.
    Looked for as NAME*.safetensors in the folder $ECODETECT_WEIGHTS, then in torch's cache
    (`hub/checkpoints`), NAME being the backbone's or the detector's; else torchvision downloads its own.
    Weights of timm's networks are never downloaded.
    Raises UserError where there are none.
    """
    if of == "coco" and name not in _COCO:
        known = " and ".join(sorted(_COCO))
        raise UserError(f"torchvision has weights of COCO for {known}, not for '{name}'; take imagenet.")
    if name.startswith(TIMM):
        from ecodetect.networks import timm_backbones

        timm_backbones.check_known(name)
        stem = name.removeprefix(TIMM)
        found = stored(stem, timm_backbones.names())
        if found is None:
            raise UserError(
                f"No ImageNet weights for '{name}': put {stem}.safetensors, in timm's naming (its own are the"
                f" model.safetensors at https://huggingface.co/timm), into the folder that {VARIABLE} names,"
                " or train with the weights 'none'.",
                parameter="weights",
            )
        return from_file(found)
    from torchvision import models

    stem, others = name, names()
    if of == "coco":
        stem, others = _COCO[name], models.list_models(module=models.detection)
    found = stored(stem, others)
    if found is not None:
        return from_file(found)
    try:
        chosen = models.get_model_weights(stem)["DEFAULT"]
        weights = chosen.get_state_dict(progress=False, check_hash=True)
        return of_backbone({key: value.numpy() for key, value in weights.items()})
    except (OSError, RuntimeError, ValueError) as error:
        what = "ImageNet weights" if of == "imagenet" else "weights of COCO"
        raise UserError(
            f"No {what} for '{name}': put {stem}.safetensors, in torchvision's naming, into the "
            f"folder that {VARIABLE} names, or train with the weights 'none'.",
            parameter="weights",
        ) from error


def encoder(
    name: str,
    weights: Weights | None,
    bands: Sequence[str],
    *,
    depth: int = 5,
    is_most: bool = False,
) -> Encoder:
    """The backbone `name` up to the stride 2**depth.

    is_most : use its coarsest features if it has none as coarse as that.
    name : torchvision's, or, after "timm/", timm's.
    weights : in torchvision's naming, or timm's; None: random.
    bands : names of the input. Red, green and blue take the weights learned for them, any other band their
        mean; all are scaled so that the first layer's output keeps its range.
    Raises UserError for an unknown name, a network that isn't sequential, or weights of another network.
    """
    if name.startswith(TIMM):
        from ecodetect.networks import timm_backbones

        return timm_backbones.encoder(name, weights, bands, depth=depth, is_most=is_most)
    model = _OWN[name]() if name in _OWN else _of_torchvision(name)
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    wide = _of_bands(first, len(bands))
    if weights is not None:
        load(model, weights, name)
        _fill(wide, first, bands)
    _replace(model, first, wide)
    row = _row(model, name)
    steps = model.steps if isinstance(model, MobileNetV2) else _probed(row, len(bands), name)
    if is_most:
        depth = min(depth, max(stride for stride, _ in steps).bit_length() - 1)
    return Row(name, row, steps, depth)


def _of_torchvision(name: str) -> nn.Module:
    from torchvision import models

    if name not in names():
        from difflib import get_close_matches

        near = get_close_matches(name, names(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see torchvision's list of models."
        raise UserError(f"No backbone named '{name}'; {hint}")
    model: nn.Module = models.get_model(name, weights=None, **_BUILT_WITH.get(name, {}))
    return model


def _of_bands(first: nn.Conv2d, bands: int) -> nn.Conv2d:
    """The first convolution for this number of bands, with padding, so that its output fits the image."""
    size, stride = first.kernel_size[0], first.stride[0]
    padding = (size - 1) // 2 if first.padding == (0, 0) else int(first.padding[0])
    return nn.Conv2d(bands, first.out_channels, size, stride, padding, bias=first.bias is not None)


def _fill(wide: nn.Conv2d, first: nn.Conv2d, bands: Sequence[str]) -> None:
    """Copy the weights learned for red, green and blue."""
    with torch.no_grad():
        wide.weight.copy_(for_bands(first.weight.detach(), bands))
        if first.bias is not None and wide.bias is not None:
            wide.bias.copy_(first.bias)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in model.modules():
        for key, child in parent.named_children():
            if child is old:
                setattr(parent, key, new)


def _row(model: nn.Module, name: str) -> list[nn.Module]:
    """The parts of the network in the order they are applied, up to the global pooling."""
    row: list[nn.Module] = []
    for key, part in model.named_children():
        if key in _ENDS:
            break
        row += list(part) if isinstance(part, nn.Sequential) and not hasattr(part, "out_channels") else [part]
    if not row:
        raise UserError(f"'{name}' can't be an encoder: it isn't a sequence of layers.")
    return row


def _probed(row: Sequence[nn.Module], in_bands: int, name: str) -> list[tuple[int, int]]:
    """Stride and channels of each part's output, measured with an empty image."""
    steps = []
    x = torch.zeros(1, in_bands, _PROBE_PX, _PROBE_PX)
    was_training = [part.training for part in row]
    for part in row:
        part.eval()
        try:
            with torch.no_grad():
                x = part(x)
        except (RuntimeError, TypeError) as error:
            raise UserError(f"'{name}' can't be an encoder: it isn't a sequence of layers.") from error
        stride = _PROBE_PX // x.shape[-1] if x.ndim == 4 else 0
        if stride * (x.shape[-1] if stride else 1) != _PROBE_PX or x.shape[-1] != x.shape[-2]:
            raise UserError(f"'{name}' can't be an encoder: its features don't line up with the image.")
        steps.append((stride, x.shape[1]))
    for part, state in zip(row, was_training, strict=True):
        part.train(state)
    return steps


class Row(Encoder):
    """A backbone cut into stages, each ending where the next halves the image.

    row, steps : its parts, with stride and channels of what each gives.
    stages : applied one after the other.
    strides : of what each stage gives, ascending; 2**depth the last.
    channels : of what each stage gives.
    """

    def __init__(
        self, name: str, row: Sequence[nn.Module], steps: Sequence[tuple[int, int]], depth: int
    ) -> None:
        super().__init__()
        stages: dict[int, list[nn.Module]] = {}
        channels: dict[int, int] = {}
        for part, (stride, outside) in zip(row, steps, strict=True):
            if stride > 2**depth:
                break
            stages.setdefault(stride, []).append(part)
            channels[stride] = outside
        self.strides, self.channels = list(stages), list(channels.values())
        if self.strides[-1] != 2**depth:
            raise UserError(
                f"'{name}' has no features at stride {2**depth}; its coarsest are at {self.strides[-1]}."
            )
        self.stages = nn.ModuleList(nn.Sequential(*parts) for parts in stages.values())

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def in_stages(self) -> list[nn.Module]:
        return list(self.stages)


class EncoderDecoder(TrainableNetwork):
    """A backbone and a decoder.

    finest : stride of the finest features, 1 or 2; for 1 a convolution of the image itself is added, for
        hardly a backbone has features as fine.
    """

    def __init__(
        self, encoder: Encoder, out_maps: int, *, width: int = 16, finest: int = 1, up: int = 1
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.stride = encoder.strides[-1]
        # Place of the features at each stride among those of the encoder; the image has one of its own.
        self.places = [
            encoder.strides.index(2**level) if 2**level in encoder.strides else None
            for level in range(1, self.stride.bit_length())
        ]
        channels = [0 if place is None else encoder.channels[place] for place in self.places]
        self.detail: nn.Module | None = None
        if finest == 1:
            first = next(layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d))
            self.detail = convolution(first.in_channels, width)
            channels = [width, *channels]
        self.decoder = Decoder(channels, out_maps, width=width * finest, finer=finest * up)

    def backbone(self) -> Encoder:
        return self.encoder

    def stages(self) -> Sequence[nn.Module]:
        return self.encoder.in_stages()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.encoder.features(x)
        features = [None if place is None else found[place] for place in self.places]
        if self.detail is not None:
            features = [self.detail(x), *features]
        out: torch.Tensor = self.decoder(features)
        return out

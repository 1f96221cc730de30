"""Classification networks of torchvision as encoders, by name, with the decoder of a U-Net on top.

A network is used as a sequence of its parts up to the global pooling, with features taken before each
halving. This works for sequential networks (ResNet, MobileNet, EfficientNet, SqueezeNet, VGG, DenseNet,
RegNet, ConvNeXt, …), and is refused in one sentence for others (transformers). Weights are read from
.safetensors files in torchvision's naming; only torchvision's own download unpickles. Networks in `_OWN` are
built without importing torchvision.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ecodetect.bundle.file import read_weights
from ecodetect.errors import UserError
from ecodetect.networks.decoding import Decoder, convolution
from ecodetect.networks.mobilenet_v2 import MobileNetV2
from ecodetect.networks.network import TrainableNetwork, Weights

VARIABLE = "ECODETECT_WEIGHTS"
# What the ImageNet weights expect of red, green and blue in 0 to 1: offset and span.
MEAN = {"red": 0.485, "green": 0.456, "blue": 0.406}
DEVIATION = {"red": 0.229, "green": 0.224, "blue": 0.225}
_PROBE_PX = 128  # sides of the images that strides are measured on
_ENDS = ("avgpool", "classifier", "fc", "head")  # where the features end and the classification begins
_OWN = {"mobilenet_v2": MobileNetV2}
# GoogLeNet has classifiers half-way, for training alone.
_BUILT_WITH: Mapping[str, Mapping[str, Any]] = {"googlenet": {"aux_logits": False, "init_weights": False}}
# torchvision's detectors of COCO's objects on these backbones, and what it calls a backbone inside.
_COCO = {"resnet50": "fasterrcnn_resnet50_fpn", "mobilenet_v3_large": "fasterrcnn_mobilenet_v3_large_fpn"}
_BODY = "backbone.body."
_CHANNELS = ("red", "green", "blue")


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
    """Weights of a backbone, in torchvision's naming.

    of : "imagenet": a classifier's; "coco": the backbone's in torchvision's detector of COCO's objects.
    Looked for as NAME*.safetensors in the folder $ECODETECT_WEIGHTS, then in torch's cache
    (`hub/checkpoints`), NAME being the backbone's or the detector's; else torchvision downloads its own.
    Raises UserError where there are none.
    """
    from torchvision import models

    if of == "coco":
        if name not in _COCO:
            known = " and ".join(sorted(_COCO))
            raise UserError(f"torchvision has weights of COCO for {known}, not for '{name}'; take imagenet.")
        stem, others = _COCO[name], models.list_models(module=models.detection)
    else:
        stem, others = name, names()

    cache = Path(torch.hub.get_dir()) / "checkpoints"
    stated = os.environ.get(VARIABLE)
    folders = [*([Path(stated)] if stated else []), cache]
    for folder in folders:
        # `vgg11` must not find `vgg11_bn`: name and rest aren't another backbone's name.
        found = [
            path
            for path in sorted(folder.glob(f"{stem}*.safetensors"))
            if max((other for other in others if path.stem.startswith(other)), key=len, default="") == stem
        ]
        if found:
            return from_file(found[0])
    try:
        chosen = models.get_model_weights(stem)["DEFAULT"]
        weights = chosen.get_state_dict(progress=False, check_hash=True)
        return _of_backbone({key: value.numpy() for key, value in weights.items()})
    except (OSError, RuntimeError, ValueError) as error:
        what = "ImageNet weights" if of == "imagenet" else "weights of COCO"
        raise UserError(
            f"No {what} for '{name}': put {stem}.safetensors, in torchvision's naming, into the "
            f"folder that {VARIABLE} names, or train with the weights 'none'.",
            parameter="weights",
        ) from error


def from_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Weights of a backbone from a file, a classifier's or those of one of torchvision's detectors.

    Raises BundleError for what is not a .safetensors file; anything pickled is refused, for it may hold a
    program.
    """
    if Path(path).suffix.lower() in (".pth", ".pt", ".ckpt", ".pkl", ".bin"):
        raise UserError(
            f"{path} is a pickled file, which may hold a program and so isn't opened; save its weights as"
            " .safetensors (safetensors.torch.save_file) where you trust it."
        )
    return _of_backbone(read_weights(path))


def _of_backbone(weights: Weights) -> dict[str, Any]:
    """The backbone's weights out of a detector's, under the names that they have in a classifier."""
    if not any(key.startswith(_BODY) for key in weights):
        return dict(weights)
    body = {key.removeprefix(_BODY): each for key, each in weights.items() if key.startswith(_BODY)}
    # torchvision takes a MobileNet's features out of the network, and so their name.
    return {f"features.{key}" if key[0].isdigit() else key: each for key, each in body.items()}


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
    weights : in torchvision's naming; None: random.
    bands : names of the input. Red, green and blue take the weights learned for them, any other band their
        mean; all are scaled so that the first layer's output keeps its range.
    Raises UserError for an unknown name, a network that isn't sequential, or weights of another network.
    """
    model = _OWN[name]() if name in _OWN else _of_torchvision(name)
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    wide = _of_bands(first, len(bands))
    if weights is not None:
        _load(model, weights, name)
        _fill(wide, first, bands)
    _replace(model, first, wide)
    row = _row(model, name)
    steps = model.steps if isinstance(model, MobileNetV2) else _probed(row, len(bands), name)
    if is_most:
        depth = min(depth, max(stride for stride, _ in steps).bit_length() - 1)
    return Encoder(name, row, steps, depth)


def _of_torchvision(name: str) -> nn.Module:
    from torchvision import models

    if name not in names():
        from difflib import get_close_matches

        near = get_close_matches(name, names(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see torchvision's list of models."
        raise UserError(f"No backbone named '{name}'; {hint}")
    model: nn.Module = models.get_model(name, weights=None, **_BUILT_WITH.get(name, {}))
    return model


def _load(model: nn.Module, weights: Weights, name: str) -> None:
    tensors = {key: torch.as_tensor(value) for key, value in weights.items()}
    wanted = model.state_dict()
    # The classifier isn't used, so it may have other classes.
    features = {key for key in wanted if not key.startswith(("classifier", "fc", "head"))}
    wrong = [key for key in features if key not in tensors or tensors[key].shape != wanted[key].shape]
    wrong = [key for key in wrong if not key.endswith("num_batches_tracked")]
    if wrong:
        raise UserError(f"These aren't weights of {name}: '{min(wrong)}' is missing or of another shape.")
    model.load_state_dict({key: tensors[key] for key in features if key in tensors}, strict=False)


def _of_bands(first: nn.Conv2d, bands: int) -> nn.Conv2d:
    """The first convolution for this number of bands, with padding, so that its output fits the image."""
    size, stride = first.kernel_size[0], first.stride[0]
    padding = (size - 1) // 2 if first.padding == (0, 0) else int(first.padding[0])
    return nn.Conv2d(bands, first.out_channels, size, stride, padding, bias=first.bias is not None)


def _fill(wide: nn.Conv2d, first: nn.Conv2d, bands: Sequence[str]) -> None:
    """Copy the weights learned for red, green and blue."""
    mean = first.weight.detach().mean(dim=1)
    columns = [
        first.weight.detach()[:, _CHANNELS.index(band)] if band in _CHANNELS else mean for band in bands
    ]
    with torch.no_grad():
        wide.weight.copy_(torch.stack(columns, dim=1) * (3 / len(bands)))
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


class Encoder(nn.Module):
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
        """What each stage gives, from fine to coarse."""
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


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
        return list(self.encoder.stages)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.encoder.features(x)
        features = [None if place is None else found[place] for place in self.places]
        if self.detail is not None:
            features = [self.detail(x), *features]
        out: torch.Tensor = self.decoder(features)
        return out

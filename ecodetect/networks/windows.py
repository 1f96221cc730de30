"""Networks that say of each window of an image what is in its middle, whole maps at a time.

All take (N, B, H, W) with sides that are multiples of the stride and give a map (N, K, H/step, W/step), one
cell for each window; the middle of cell (i, j) is the middle of its window. Beyond the image is 0.

- `Valid` looks at windows of 64 px without padding, so that its features can be shared by all windows and the
  answer for a window is the same as if it were given alone (fully convolutional evaluation: Sermanet et al.
  2014, arXiv:1312.6229). Its map has a cell every 8 or 16 px; finer ones come from shifted passes,
  interleaved ("shift and stitch", Long et al. 2015, arXiv:1411.4038, section 3.2).
- `Dense` is a backbone whose convolutions are padded. It is trained as it is used, on whole chips; window by
  window it would be another network.
- `Windowed` cuts windows and gives them to a classifier, in batches: exact for any network, and slow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from ecodetect.errors import UserError
from ecodetect.networks.network import Encoder, Part, Settings, TrainableNetwork, Weights

VALID_PX, VALID_STRIDE = 64, 8  # of `Valid`: its window and the step between its cells
VALID_STEPS = (2, 4, 8, 16)  # that its map may have: shifted passes, all cells, or every second
DENSE_DEPTH = 4  # cells of `Dense` are 2**4 px wide: finer features of a backbone know little yet
_POOLED = 3  # cells of `Dense` along a side whose features are averaged
_AT_ONCE = 64  # windows that a classifier is given together
_DROPPED = 0.2  # share of features that aren't seen, while training
_BOTH = ("scores", "features")  # without a head, both are the features


def build(
    settings: Settings, bands: Sequence[str], outputs: int, weights: Weights | None = None
) -> TrainableNetwork:
    """The network that `settings` describe, with weights at random or, of a backbone, pretrained.

    settings : kind ("valid" or the name of a backbone), evaluation ("dense" or "windows"), window and step in
        pixels, width (of "valid", channels of its first layer).
    outputs : values of a cell: logits of classes, or 0: the features that they are taken from.
    Raises UserError for an unknown kind, or a step that can't be.
    """
    kind, evaluation = str(settings["kind"]), str(settings["evaluation"])
    window, step = int(settings["window"]), int(settings["step"])
    if kind == "valid":
        if weights is not None:
            raise UserError("The network 'valid' is learned from scratch: there are no pretrained weights.")
        width = int(settings.get("width", 24))
        if evaluation == "windows":  # with the same weights
            return Windowed(ValidClassifier(len(bands), outputs, width=width), VALID_PX, step)
        return Valid(len(bands), outputs, width=width, step=step)
    from ecodetect.networks.backbones import encoder

    if evaluation == "dense":
        return Dense(encoder(kind, weights, bands, depth=DENSE_DEPTH, is_most=True), outputs)
    return Windowed(WindowClassifier(encoder(kind, weights, bands, is_most=True), outputs), window, step)


def build_single(settings: Settings, bands: Sequence[str], outputs: int) -> TrainableNetwork:
    """The same network, with the same names of weights, for windows given one by one.

    It takes (n, B, S, S). "valid" and "windows" answer (n, K, 1, 1) to windows of their own size. "dense"
    stays what it is, a map: what it says of a place depends on more than a window.
    """
    if settings["kind"] == "valid" or settings["evaluation"] == "windows":
        settings = {**settings, "evaluation": "windows", "step": settings["window"]}
    return build(settings, bands, outputs)


def _valid(inside: int, outside: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, size, stride, bias=False), nn.BatchNorm2d(outside), nn.ReLU(inplace=True)
    )


class ValidClassifier(nn.Module):
    """Layers without padding that see exactly 64 x 64 px and move by 8.

    width : channels of the first layer, twice as many after the second halving.
    Along a side 64 px become 31, 29, 14, 12, 5, 3, 1.
    """

    def __init__(self, in_bands: int, outputs: int, *, width: int) -> None:
        super().__init__()
        # The last layers see most of a window, so that windows share little of them: they are narrow.
        last, bottleneck = 8 * width // 3, 4 * width // 3
        self.body = nn.Sequential(
            _valid(in_bands, width, 4, 2),
            _valid(width, width, 3),
            _valid(width, 2 * width, 3, 2),
            _valid(2 * width, 2 * width, 3),
            _valid(2 * width, last, 4, 2),
            _valid(last, bottleneck, 3),
            _valid(bottleneck, last, 3),
        )
        self.drop = nn.Dropout2d(_DROPPED)
        self.head = nn.Conv2d(last, outputs, 1) if outputs else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.drop(self.body(x)))
        return found

    def both(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The answers, and the features that they are taken from."""
        features = self.body(x)
        return self.head(features), features


class Valid(TrainableNetwork):
    """`ValidClassifier` for all windows of an image at once.

    step : from cell to cell, in pixels, one of `VALID_STEPS`.
    """

    def __init__(self, in_bands: int, outputs: int, *, width: int = 24, step: int = VALID_STRIDE) -> None:
        super().__init__()
        if step not in VALID_STEPS:
            raise UserError(f"The network 'valid' gives a score every 16, 8, 4 or 2 px, not every {step}.")
        self.classifier = ValidClassifier(in_bands, outputs, width=width)
        self.stride, self.step = max(VALID_STRIDE, step), step
        self.reach_px = (VALID_PX + step) // 2  # from a pixel of a cell to the farthest of its window

    def parts(self) -> Mapping[str, Part]:
        # Shifted passes are put together in numpy, and a window given alone is an image of 64 px.
        return {"windows": Part(self.classifier.both, _BOTH, side=VALID_PX)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        around = (VALID_PX - VALID_STRIDE) // 2
        if self.step > VALID_STRIDE:  # every second cell, between two of the finer ones
            half = (self.step - VALID_STRIDE) // 2
            sides = (around - half, around + half, around - half, around + half)
            return self._every_second(functional.pad(x, sides))
        passes = VALID_STRIDE // self.step
        # The middle of fine cell k * passes + i lies so far from that of cell k.
        shifts = [self.step * (2 * i + 1 - passes) // 2 for i in range(passes)]
        rows = []
        for down in shifts:
            row = []
            for across in shifts:
                sides = (around - across, around + across, around - down, around + down)
                row.append(self.classifier(functional.pad(x, sides)))
            rows.append(_interleaved(row, 3))
        return _interleaved(rows, 2)

    def _every_second(self, x: torch.Tensor) -> torch.Tensor:
        """What the classifier says of every second of its cells; its last layer looks at no others."""
        layers = list(self.classifier.body)
        for layer in layers[:-1]:
            x = layer(x)
        # Folded into it or not, normalisation follows the convolution.
        convolution, *rest = layers[-1].children()
        assert isinstance(convolution, nn.Conv2d)
        x = functional.conv2d(x, convolution.weight, convolution.bias, stride=self.step // VALID_STRIDE)
        for part in rest:
            x = part(x)
        found: torch.Tensor = self.classifier.head(self.classifier.drop(x))
        return found


def _interleaved(maps: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
    """Maps of every n-th line put together in one, line by line."""
    if len(maps) == 1:
        return maps[0]
    shape = list(maps[0].shape)
    shape[axis] *= len(maps)
    return torch.stack(list(maps), axis + 1).reshape(shape)


class Dense(TrainableNetwork):
    """A backbone's features, averaged over 3 x 3 cells, and what they say.

    stride : of the features, and the step between cells.
    """

    def __init__(self, encoder: Encoder, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.stride = self.step = encoder.strides[-1]
        self.drop = nn.Dropout2d(_DROPPED)
        self.head = nn.Conv2d(encoder.channels[-1], outputs, 1) if outputs else nn.Identity()

    def backbone(self) -> Encoder:
        return self.encoder

    def stages(self) -> Sequence[nn.Module]:
        return self.encoder.in_stages()

    def parts(self) -> Mapping[str, Part]:
        return {"image": Part(self.both, _BOTH)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.drop(self.features(x)))
        return found

    def both(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The answers, and the features that they are taken from."""
        features = self.features(x)
        return self.head(features), features

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Of each cell, averaged with those around it."""
        return functional.avg_pool2d(
            self.encoder.features(x)[-1], _POOLED, stride=1, padding=_POOLED // 2, count_include_pad=False
        )


class WindowClassifier(nn.Module):
    """A backbone, the mean of its features over the window, and what they say: (n, B, S, S) to (n, K)."""

    def __init__(self, encoder: Encoder, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.drop = nn.Dropout(_DROPPED)
        self.head = nn.Linear(encoder.channels[-1], outputs) if outputs else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.drop(self.features(x)))
        return found

    def both(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The answers, and the features that they are taken from."""
        features = self.features(x)
        return self.head(features), features

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The mean over the window, (n, C)."""
        return self.encoder.features(x)[-1].mean(dim=(2, 3))


class Windowed(TrainableNetwork):
    """A classifier that sees each window alone.

    classifier : (n, B, window, window) to (n, K).
    window, step : in pixels; the step is the stride too, and as even or odd as the window.
    """

    def __init__(self, classifier: ValidClassifier | WindowClassifier, window: int, step: int) -> None:
        super().__init__()
        if not 0 < step <= window:
            raise UserError(f"The step between windows of {window} px must be 1 to {window} px, not {step}.")
        self.classifier = classifier
        self.window, self.stride, self.step = window, step, step
        self.reach_px = -(-(window + step) // 2)

    def parts(self) -> Mapping[str, Part]:
        is_fixed = isinstance(self.classifier, WindowClassifier)
        return {"windows": Part(self.classifier.both, _BOTH, side=self.window, is_fixed=is_fixed)}

    def backbone(self) -> Encoder | None:
        return self.classifier.encoder if isinstance(self.classifier, WindowClassifier) else None

    def stages(self) -> Sequence[nn.Module]:
        encoder = self.backbone()
        return () if encoder is None else encoder.in_stages()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = (self.window - self.step) // 2
        after = self.window - self.step - before
        padded = functional.pad(x, (before, after, before, after))
        views = padded.unfold(2, self.window, self.step).unfold(3, self.window, self.step)
        count, _, rows, columns = views.shape[:4]
        if rows * columns == 1:
            answers: torch.Tensor = self.classifier(padded)
            return answers.reshape(count, 1, 1, -1).permute(0, 3, 1, 2)
        found = []
        for image in views:
            for row in image.transpose(0, 1):  # (columns of a row of windows, in each band)
                windows = row.transpose(0, 1)
                found += [self.classifier(part.contiguous()) for part in windows.split(_AT_ONCE)]
        return torch.cat(found).reshape(count, rows, columns, -1).permute(0, 3, 1, 2)

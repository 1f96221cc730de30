"""The report of a training: curves as a picture, and one line that interprets them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ecodetect.pictures.files import save
from ecodetect.training.loop import Epoch, Fitted
from ecodetect.training.selection import FEW, last_as_good

_GAP = 0.1  # between F1 of training and validation: more is overfitting
_LOW = 0.6  # F1 on training: less is not learned

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 900, 420, 60, 50, 40
_LOSS, _F1, _INK, _LINE = (0, 114, 178), (213, 94, 0), (40, 40, 40), (225, 225, 225)


def verdict(fitted: Fitted, method: str) -> str:
    """What F1 on training and validation ground means, and what to do."""
    seen, unseen, n = fitted.training.f1, fitted.validation.f1, fitted.validation.n_truths
    if not n or math.isnan(unseen):
        return (
            f"F1 {seen:.2f} on ground it was trained on; nothing was left for validation, so its"
            " quality elsewhere is unknown: annotate another place and compare with `ecodetect evaluate`."
        )
    figures = f"F1 {unseen:.2f} on validation (n = {n:,}, {method}), {seen:.2f} on ground it was trained on: "
    if seen < _LOW:
        told = (
            "it underfits: it hasn't even learned its training ground; check the annotations with"
            " `ecodetect check`, the GSD and the radius, or train longer."
        )
    elif seen - unseen > _GAP:
        told = (
            "it overfits; more annotations from more places help most, then transfer learning from a model"
            " or a pretrained encoder."
        )
    elif fitted.history and not fitted.stopped and _still_rises(fitted.history):
        told = "it was still getting better when training ended; train longer."
    else:
        told = "both agree, so expect the same on ground that looks similar."
    if n < FEW:
        told = told.rstrip(".") + f"; n = {n} is small, so this is rough."
    return f"{figures}{told} {fitted.counted or ''}".rstrip()


def _still_rises(history: Sequence[Epoch]) -> bool:
    f1s = [epoch.f1 for epoch in history]
    late = max(1, len(f1s) // 6)
    return len(f1s) > 5 and max(f1s[-late:]) > max(f1s[:-late]) + 0.01


def draw_curves(history: Sequence[Epoch], path: str | os.PathLike[str], *, title: str) -> None:
    """Draw loss (logarithmic) and validation F1 over steps, with a ring at the chosen epoch, as PNG."""
    sheet = Image.new("RGB", (_WIDTH, _HEIGHT), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    small, large = ImageFont.load_default(13), ImageFont.load_default(17)
    right, bottom = _WIDTH - _LEFT, _HEIGHT - _BOTTOM
    pen.text((_LEFT, 12), title.encode("ascii", "replace").decode(), font=large, fill=_INK)
    loss = np.array([epoch.loss for epoch in history], float)
    f1 = np.array([epoch.f1 for epoch in history], float)
    steps = np.array([epoch.step for epoch in history], float)
    last = max(float(steps.max(initial=1.0)), 1.0)
    x = _LEFT + steps / last * (right - _LEFT)
    for share in np.linspace(0, 1, 6):
        y = bottom - share * (bottom - _TOP)
        pen.line([(_LEFT, y), (right, y)], fill=_LINE)
        pen.text((right + 6, y - 8), f"{share:.1f}", font=small, fill=_F1)
    for share in np.linspace(0, 1, 5):
        at = _LEFT + share * (right - _LEFT)
        pen.text((at, bottom + 8), f"{share * last:,.0f}", font=small, fill=_INK, anchor="ma")
    positive = loss[np.isfinite(loss) & (loss > 0)]
    if len(positive):
        low, high = math.log10(positive.min()), math.log10(positive.max())
        high = max(high, low + 0.1)
        level = (np.log10(np.maximum(loss, positive.min())) - low) / (high - low)
        _curve(pen, x, bottom - level * (bottom - _TOP), _LOSS)
        for share in (0.0, 0.5, 1.0):
            value = 10 ** (low + share * (high - low))
            pen.text(
                (_LEFT - 6, bottom - share * (bottom - _TOP)),
                f"{value:.2g}",
                font=small,
                fill=_LOSS,
                anchor="rm",
            )
    _curve(pen, x, bottom - f1 * (bottom - _TOP), _F1)
    if np.isfinite(f1).any():
        best = last_as_good([epoch.drawn for epoch in history])
        at = (x[best], bottom - f1[best] * (bottom - _TOP))
        pen.ellipse([at[0] - 5, at[1] - 5, at[0] + 5, at[1] + 5], outline=_F1, width=2)
        pen.text((at[0], at[1] - 10), f"{f1[best]:.3f}", font=small, fill=_F1, anchor="ms")
    pen.text((right, 14), "F1 on validation", font=small, fill=_F1, anchor="ra")
    pen.text((right - 130, 14), "loss on training", font=small, fill=_LOSS, anchor="ra")
    pen.text((_WIDTH // 2, _HEIGHT - 16), "steps", font=small, fill=_INK, anchor="ma")
    save(sheet, path)


def _curve(pen: ImageDraw.ImageDraw, x: np.ndarray, y: np.ndarray, colour: tuple[int, int, int]) -> None:
    good = np.isfinite(y)
    points = [(float(a), float(b)) for a, b in zip(x[good], y[good], strict=True)]
    if len(points) > 1:
        pen.line(points, fill=colour, width=2)
    for a, b in points:
        pen.ellipse([a - 2, b - 2, a + 2, b + 2], fill=colour)

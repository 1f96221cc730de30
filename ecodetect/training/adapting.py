"""Fine-tuning from a bundle: its network for other bands, another ground size of a pixel, other classes.

The first layer is mapped by the names of the bands; the GSD is chosen so that individuals are as many pixels
wide as those that the bundle has learned; the last layer stays where the classes do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ecodetect.bundle import Bundle, Card
from ecodetect.notes import Note
from ecodetect.training.samples import TYPICAL_PX, Contract, contract
from ecodetect.training.sources import Source


def contract_for(
    card: Card, sources: Sequence[Source], gsd: float | None = None, *, typical_px: float = TYPICAL_PX
) -> tuple[Contract, tuple[Note, ...]]:
    """How a model that starts from a bundle should see rasters, and notes of what was chosen.

    gsd : metres per pixel; chosen from the objects' sizes if not given.
    typical_px : width that usual objects shall have where the size of pixels is unknown.
    """
    own = [float(np.sqrt(np.prod(s.grid.gsd))) for s in sources if s.grid.gsd is not None]
    notes: list[Note] = []
    if gsd is None and len(own) == len(sources):
        sizes = np.concatenate(
            [source.size_px[source.kept] * each for source, each in zip(sources, own, strict=True)]
        )
        sizes = sizes[np.isfinite(sizes)]
        typical = card.options.get("typical_px")
        if len(sizes) and typical:
            native = float(np.median(own))
            wanted = float(np.median(sizes)) / float(typical)
            # Finer than the raster there is nothing to see; half again as large an object is still known.
            gsd = native if wanted < 1.3 * native else float(f"{wanted:.2g}")
        elif card.unit == "m" and card.gsd is not None:
            gsd = card.gsd
        if gsd is not None:
            text = f"'{card.name}' is adapted to {gsd:g} m per pixel."
            notes.append(Note("adapted-gsd", text, kind="choice"))
    found, more = contract(sources, gsd=gsd, typical_px=typical_px)
    if set(found.bands) != set(card.bands):
        text = f"'{card.name}' has learned {', '.join(card.bands)}; here it sees {', '.join(found.bands)}."
        notes.append(Note("adapted-bands", text, kind="choice"))
    return found, (*notes, *more)


def adapted(network: nn.Module, start: Bundle, card: Card) -> Iterator[Note]:
    """Fill a network for `card` with what fits of a bundle; notes of what doesn't."""
    own = network.state_dict()
    first = next(name for name, each in own.items() if each.ndim == 4)
    new = []
    for name, value in own.items():
        if name not in start.weights:
            new.append(name)
            continue
        there = torch.from_numpy(np.array(start.weights[name])).to(value.dtype)
        if name == first or name.startswith("detail.0."):  # what looks at the image itself
            there = _by_band(there, start.card.bands, card.bands)
        if there.shape != value.shape:
            new.append(name)
            continue
        value.copy_(there)
    network.load_state_dict(own)
    if new:
        share = sum(own[name].numel() for name in new) / sum(value.numel() for value in own.values())
        text = (
            f"{100 * (1 - share):.2g} % of the weights are those of '{start.card.name}'; the others, which"
            " depend on the classes, the bands or the size of objects, are learned from the start."
        )
        yield Note("weights-kept", text)
    if start.card.classes != card.classes:
        before, now = ", ".join(start.card.classes), ", ".join(card.classes)
        text = f"Classes were {before} and are now {now}, in this order."
        yield Note("classes-changed", text)


def _by_band(weight: Tensor, there: Sequence[str], here: Sequence[str]) -> Tensor:
    """The first convolution (out, bands, h, w) for other bands; a new one begins as the mean of all.

    The sum over bands keeps its range: scaled values of all bands are about as large.
    """
    mean = weight.mean(dim=1)
    columns = [weight[:, there.index(name)] if name in there else mean for name in here]
    wide: Tensor = torch.stack(columns, dim=1) * (len(there) / len(here)) ** 0.5
    return wide

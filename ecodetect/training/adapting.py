"""Transfer learning from a bundle: adapts its network to other bands, pixel sizes and classes.

The first layer is mapped by band names; the last layer is kept for classes that are the same. `beginning`
chooses the GSD.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ecodetect.bundle.card import Card
from ecodetect.bundle.file import Bundle
from ecodetect.errors import BundleError
from ecodetect.notes import Note


def adapted(network: nn.Module, start: Bundle, card: Card) -> Iterator[Note]:
    """Load all weights of a bundle that fit into a network for `card`; returns notes on the others."""
    own = network.state_dict()
    first = next(name for name, each in own.items() if each.ndim == 4)
    new = []
    for name, value in own.items():
        if name not in start.weights:
            new.append(name)
            continue
        there = torch.from_numpy(np.array(start.weights[name])).to(value.dtype)
        if not bool(there.isfinite().all()):  # 64-bit numbers that 32 bits can't hold
            raise BundleError(f"The weights of '{start.card.name}' hold a value that isn't finite.")
        looks = name == first or name.startswith("detail.0.")  # the first layer
        if looks and there.ndim == 4 and there.shape[1] == len(start.card.bands):
            there = _by_band(there, start.card.bands, card.bands)
        if there.shape != value.shape:
            new.append(name)
            continue
        value.copy_(there)
    network.load_state_dict(own)
    if new:
        share = sum(own[name].numel() for name in new) / sum(value.numel() for value in own.values())
        kept = f"{min(100 * (1 - share), 99.9):.3g} %"
        text = (
            f"{kept} of the weights are those of '{start.card.name}'; the others, which depend on classes,"
            " bands or the size of objects, are learned from the start."
        )
        yield Note("weights-kept", text)
    if start.card.classes != card.classes:
        before, now = ", ".join(start.card.classes), ", ".join(card.classes)
        text = f"Classes were {before} and are now {now}, in this order."
        yield Note("classes-changed", text)


def _by_band(weight: Tensor, there: Sequence[str], here: Sequence[str]) -> Tensor:
    """The first convolution (out, bands, h, w) for other bands; a new band starts with the mean of all.

    The sum over bands keeps its range, because scaled values of all bands are of similar size.
    """
    mean = weight.mean(dim=1)
    columns = [weight[:, there.index(name)] if name in there else mean for name in here]
    wide: Tensor = torch.stack(columns, dim=1) * (len(there) / len(here)) ** 0.5
    return wide

"""A model's file is data: whatever its card or its weights say, it opens, or one sentence says why it doesn't."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import learned
import numpy as np
import pytest

from ecodetect import bundle, detectors, models, strict_json
from ecodetect.bundle import Bundle, BundleError, Card
from ecodetect.detectors.protocol import Scene
from ecodetect.errors import UserError
from ecodetect.grid import Grid
from ecodetect.input_spec import working_grid
from ecodetect.memory import Source, lay_out

DEEP = json.loads("[" * 60 + "]" * 60)
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 3, 10**17, 10**400, 0.5, -0.0, 1e4, 1e8, 1e-8, 1e300, -1e300, float("inf"),
    float("nan"), "", "x", "\ud800", "a\x00b", "é\u202e\U0001f333", "x" * 10**5, [], [1], ["x"], [None], [[]],
    [1] * 2000, {}, {"x": 1}, {"": {}}, DEEP, "1", "nan",
]  # fmt: skip
KINDS = sorted(name for name in detectors.TABLE if detectors.is_learned(name))


def facts_of(card: Card) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(card.to_json())
    return found


def places(facts: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a card there is a value: the way down to it; of a list the first is enough."""
    if way:
        yield way
    if isinstance(facts, dict):
        for name, inner in facts.items():
            yield from places(inner, (*way, name))
    elif isinstance(facts, list) and facts:
        yield from places(facts[0], (*way, 0))


def changed(facts: dict[str, Any], way: tuple[Any, ...], value: Any) -> dict[str, Any]:
    made = copy.deepcopy(facts)
    inner: Any = made
    for step in way[:-1]:
        inner = inner[step]
    inner[way[-1]] = value
    return made


def without(facts: dict[str, Any], way: tuple[Any, ...]) -> dict[str, Any]:
    made = copy.deepcopy(facts)
    inner: Any = made
    for step in way[:-1]:
        inner = inner[step]
    del inner[way[-1]]
    return made


def opened(facts: dict[str, Any], weights: Any) -> None:
    """All that happens before a pixel is read, on a raster of 1200 x 1000 px."""
    card = Card.from_json(json.dumps(facts), source="a.safetensors")
    detectors.check_card(card)
    card.to_json()
    scene = Scene(card.bands, (0.2, 0.2), "uint8", (0.0, 255.0))
    if card.detector not in detectors.known() or models.misfit(card, scene) is not None:
        return
    if card.detector not in CHEAP and card.options != BEFORE.get(card.detector):
        return  # its network is built by the same settings in `test_options_describe_a_network`
    needs = detectors.build(card.detector, scene, {}, bundle=Bundle(card, weights)).needs
    grid = working_grid(Grid(1200, 1000).with_gsd(0.2), needs.gsd_m, needs.own_px)
    assert grid.width * grid.height < 16**2 * 1.1 * 1200 * 1000
    layout = lay_out(grid, needs, Source((256, 256), 3, 3), tile_px=None, workers=1, limit=None)
    assert layout.peak_bytes < 5e9


CHEAP = {"obia", "heatmap", "proposals", "sliding_window"}
BEFORE: dict[str, Any] = {}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_a_card_opens_or_is_refused_in_a_sentence(name: str) -> None:
    made = learned.bundle(
        learned.card(
            name, thresholds={"f1": (0.5,)}, agreement={"shift_px": 0.1}, reach_px=64, unit="m", gsd=0.2,
            gsd_range=(0.1, 0.4), diameter_range=(1.0, 3.0), description="d", versions={"python": "3"},
            trained_on=({"name": "a", "places": ((1.0, 2.0),), "objects": 3},),
            metrics=({"split": "a", "f1": 0.5, "count_off": 0.1, "n": 3},),
        )
    )  # fmt: skip
    facts = facts_of(made.card)
    BEFORE[name] = Card.from_json(json.dumps(facts), source="a").options
    opened(facts, made.weights)
    refused = 0
    for way in places(facts):
        for value in [*HOSTILE, without]:
            mutant = without(facts, way) if value is without else changed(facts, way, value)
            try:
                opened(mutant, made.weights)
            except UserError as error:
                refused += 1
                assert "\n" not in str(error), (way, str(value)[:50])
            except Exception as error:
                pytest.fail(f"{way} = {str(value)[:50]!r}: {type(error).__name__}: {error}")
    assert refused > 500

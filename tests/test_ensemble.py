"""Several models that answer together, and one that looks several times."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecodetect.chip import Chip
from ecodetect.detections import Detections, GeometryType
from ecodetect.detectors import ensemble
from ecodetect.detectors.protocol import Needs
from ecodetect.errors import UserError
from ecodetect.grid import Window
from ecodetect.testing import chip_of


@dataclass(frozen=True)
class Bright:
    """Finds the one bright rectangle of the first of its bands."""

    name: str = "bright"
    bands: tuple[str, ...] = ("red",)
    classes: tuple[str, ...] = ("seal", "rock")
    label: int = 0
    score: float = 0.8
    gsd_m: float | None = 0.1
    kind: GeometryType = "box"
    shift: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs(self) -> Needs:
        return Needs(self.bands, 40.0, gsd_m=self.gsd_m, scores=(0.2, 0.4), stride_px=4)

    def surveyed(self, samples: Iterable[Chip]) -> Bright:
        return self

    def detect(self, chips: Sequence[Chip]) -> list[Detections]:
        found = []
        for chip in chips:
            rows, columns = np.nonzero(chip.pixels[0] > 100)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else []
            boxes = np.array(box, np.float64).reshape(-1, 4) + self.shift
            n = len(boxes)
            score = np.full(n, self.score)
            label = np.full(n, self.label, np.int64)
            found.append(Detections(chip.grid, "box", boxes, score, label, self.classes))
        return found


def chip(bands: tuple[str, ...] = ("red",)) -> Chip:
    pixels = np.zeros((len(bands), 40, 60), np.uint8)
    pixels[:, 5:20, 8:30] = 200
    return chip_of(pixels, None, bands, Window(0, 0, 60, 40))


def test_what_both_see_is_the_mean_weighted_by_score() -> None:
    both = ensemble.of([Bright(), Bright(name="other", score=0.4, shift=1.0)], flips=False)
    (found,) = both.detect([chip()])
    np.testing.assert_allclose(found.geometry, np.array([[8, 5, 30, 20]]) + 1 / 3)
    assert found.score == pytest.approx([0.6])
    assert both.name == "bright + other"


def test_what_one_sees_is_trusted_less() -> None:
    both = ensemble.of([Bright(), Bright(shift=30.0, score=0.6)], flips=False)
    (found,) = both.detect([chip()])
    assert found.score.tolist() == pytest.approx([0.4, 0.3])


def test_classes_are_matched_by_name() -> None:
    turned = Bright(classes=("rock", "seal"), label=1)
    both = ensemble.of([Bright(), turned], flips=False)
    (found,) = both.detect([chip()])
    assert found.labels.tolist() == ["seal"]
    assert both.needs.scores == pytest.approx((0.3, 0.3))


def test_each_member_gets_its_own_bands() -> None:
    both = ensemble.of([Bright(bands=("red",)), Bright(bands=("nir", "red"))], flips=False)
    assert both.needs.bands == ("red", "nir")
    pixels = chip(("red", "nir"))
    pixels.pixels[0] = 0
    (found,) = both.detect([pixels])
    assert found.score.tolist() == pytest.approx([0.4])


def test_boxes_of_turned_chips_come_back_in_their_place() -> None:
    (plain,) = Bright().detect([chip()])
    looked = ensemble.of([Bright()], flips=True)
    (found,) = looked.detect([chip()])
    np.testing.assert_allclose(found.geometry, plain.geometry)
    np.testing.assert_allclose(found.score, plain.score)
    assert looked.needs.cost == 4 * Bright().needs.cost


def test_one_model_without_flips_is_itself() -> None:
    alone = Bright()
    assert ensemble.of([alone], flips=False) is alone


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Bright(kind="point"), "Several models in one scan are for detectors of boxes; bright finds points."),
        (Bright(classes=("palm",)), "bright knows seal, rock, but bright palm"),
        (Bright(gsd_m=0.2), "reads rasters at 0.1 m per pixel, bright at 0.2 m per pixel"),
        (Bright(gsd_m=None), "bright at 1 of their pixels"),
    ],
)
def test_members_that_do_not_fit_are_answered(other: Bright, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ensemble.of([Bright(), other], flips=False)


boxes = st.lists(st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 20)] * 2), max_size=12)


@settings(max_examples=30, deadline=None)
@given(boxes, st.randoms(use_true_random=False))
def test_fusing_does_not_depend_on_the_order(places: list[tuple[int, ...]], chance: Any) -> None:
    box = np.array(places, np.float64).reshape(-1, 4)
    box[:, 2:] += box[:, :2]
    score = np.array([chance.uniform(0.01, 1) for _ in box])
    order = list(range(len(box)))
    chance.shuffle(order)
    one, other = ensemble.fused(box, score, 2), ensemble.fused(box[order], score[order], 2)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b)
    assert len(one[0]) <= len(box)
    assert (one[1] <= (score.max() if len(score) else 1)).all()
    for a, b in itertools.combinations(one[0], 2):
        assert np.isfinite([a, b]).all()

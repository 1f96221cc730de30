"""What every detector of the table must keep to; a new one is tested by being in the table."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache

import learned
import pytest

from ecodetect import testing
from ecodetect.detectors import table as detectors
from ecodetect.detectors.learned import NetworkKind
from ecodetect.detectors.table import TABLE, is_learned
from ecodetect.testing import Subject

# What `mask_rcnn` does to pixels `faster_rcnn` does; it is the slowest of all.
SLOW = {"mask_rcnn"}
# Of masks of chance the largest part may be another.
SHARE = {"mask_rcnn": 0.95}
pytestmark = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in sorted(TABLE)]
)


@lru_cache
def subject(name: str) -> Subject:
    """The detector; a learned one with random weights."""
    model = learned.bundle(learned.card(name)) if is_learned(name) else None
    return Subject(name, model, SHARE.get(name, 1.0))


def test_every_option_is_documented(name: str) -> None:
    testing.check_options_are_documented(subject(name))


def test_an_unknown_option_is_answered(name: str) -> None:
    testing.check_an_unknown_option_is_answered(subject(name))


def test_it_says_what_it_is(name: str) -> None:
    testing.check_it_says_what_it_is(subject(name))


def test_the_card_of_a_training_opens(name: str) -> None:
    testing.check_its_card_opens(subject(name))


def test_losses_fall_on_a_sample_that_is_learned_by_heart(name: str) -> None:
    """Of one without a network: what a learner says of the sample are its objects."""
    testing.check_it_learns(subject(name), steps=6, side=96)


def test_what_targets_say_is_what_is_read(name: str) -> None:
    """Outputs of a network that answers as its targets ask give the objects of the sample."""
    if name not in learned.IDEAL:
        pytest.skip("trains no network")
    kind, sample = detectors.network_kind(name), testing.discs(side=128)
    card = learned.card(name, options=learned.SHARP.get(name, {}))
    (answer,) = kind.decode(learned.IDEAL[name](kind.targets(sample, card), card), card)
    testing.assert_found(answer, sample, share=1.0)


def test_every_network_is_tested_by_what_its_targets_say(name: str) -> None:
    assert isinstance(detectors.declared(name), NetworkKind) == (name in learned.IDEAL)


def test_a_survey_is_a_function_of_the_samples(name: str) -> None:
    testing.check_a_survey_is_a_function_of_the_samples(subject(name))


@pytest.mark.parametrize("kind", testing.DTYPES)
def test_every_type_of_pixel(name: str, kind: str) -> None:
    testing.check_every_type_of_pixel(subject(name), [kind])


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e308", "-1e308"])
def test_values_that_are_no_measurement(name: str, value: str) -> None:
    testing.check_values_that_are_no_measurement(subject(name), [float(value)])


def test_nothing_valid_nothing_found(name: str) -> None:
    testing.check_nothing_valid_nothing_found(subject(name))


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (3, 3)])
def test_chips_smaller_than_any_filter(name: str, size: tuple[int, int]) -> None:
    testing.check_chips_smaller_than_any_filter(subject(name), [size])


def test_a_chip_is_not_changed_and_gives_the_same_alone_and_in_a_batch(name: str) -> None:
    testing.check_a_chip_is_not_changed_and_gives_the_same_alone_and_in_a_batch(subject(name))


def test_tiling_cannot_be_seen(name: str) -> None:
    testing.check_tiling_cannot_be_seen(subject(name))


def test_a_map_of_scores_is_given_when_asked_for(name: str) -> None:
    testing.check_a_map_of_scores_is_given_when_asked_for(subject(name))


@pytest.fixture(scope="module")
def imported_with() -> dict[str, list[str]]:
    """What each detector's module imports beside itself that takes seconds, of those not imported before."""
    code = (
        "import sys, json, importlib\n"
        "modules, heavy, found, before = json.loads(sys.argv[1]), sys.argv[2:], {}, set()\n"
        "for name, module in modules.items():\n"
        "    importlib.import_module(module)\n"
        "    found[name] = [each for each in heavy if each in sys.modules and each not in before]\n"
        "    before.update(found[name])\n"
        "print(json.dumps(found))"
    )
    modules = {name: place.partition(":")[0] for name, place in TABLE.items()}
    heavy = ("torch", "torchvision", "rasterio", "geopandas")
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(modules), *heavy], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_it_is_imported_without_what_it_does_not_need(name: str, imported_with: dict[str, list[str]]) -> None:
    assert imported_with[name] == []

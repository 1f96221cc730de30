"""A model's file is data: whatever it says, it opens, or one sentence says why it doesn't."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import learned
import numpy as np
import pytest

from ecodetect import strict_json
from ecodetect.bundle import file as bundle
from ecodetect.bundle.card import Card, Scaling
from ecodetect.bundle.file import Bundle
from ecodetect.bundle.input_spec import working_grid
from ecodetect.bundle.scaling import scaled
from ecodetect.detectors import table as detectors
from ecodetect.detectors.learned_detector import LearnedDetector, NetworkLook
from ecodetect.detectors.protocol import Needs, Scene
from ecodetect.errors import BundleError, UserError
from ecodetect.grid import Grid
from ecodetect.models import choosing as models
from ecodetect.scanning.layout import PixelCost, lay_out, read_size

DEEP = json.loads("[" * 60 + "]" * 60)
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 3, 10**17, 10**400, 0.5, -0.0, 1e4, 1e8, 1e-8, 1e300, -1e300, float("inf"),
    float("nan"), "", "x", "\ud800", "a\x00b", "é\u202e\U0001f333", "x" * 10**5, [], [1], ["x"], [None], [[]],
    [1] * 2000, {}, {"x": 1}, {"": {}}, DEEP, "1", "nan",
]  # fmt: skip
# One of each sort, for what has many places.
FEW: list[Any] = [None, True, -1, 10**400, 1e300, float("nan"), "", "x" * 10**5, [], {"": {}}, DEEP]
KINDS = sorted(name for name in detectors.TABLE if detectors.is_learned(name))


LIKE_FASTER_RCNN = ("fcos", "mask_rcnn", "retinanet", "ssd")
SLOW = ("faster_rcnn", "proposals", "yolo")  # to build


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


def changed(facts: Any, way: tuple[Any, ...], value: Any) -> Any:
    """The same with another value there; what isn't on the way is shared."""
    if not way:
        return value
    made = dict(facts) if isinstance(facts, dict) else list(facts)
    made[way[0]] = changed(made[way[0]], way[1:], value)
    return made


def without(facts: Any, way: tuple[Any, ...]) -> Any:
    made = dict(facts) if isinstance(facts, dict) else list(facts)
    if len(way) == 1:
        del made[way[0]]
    else:
        made[way[0]] = without(made[way[0]], way[1:])
    return made


def read(facts: dict[str, Any]) -> Card:
    card = Card.from_json(json.dumps(facts), source="a.safetensors")
    detectors.check_card(card)
    return card


def used(card: Card, weights: Any) -> None:
    """All that happens before a pixel is read, on a raster of 1200 x 1000 px."""
    scene = Scene(card.bands, (0.2, 0.2), "uint8", (0.0, 255.0))
    if card.detector not in detectors.known() or models.misfit(card, scene) is not None:
        return
    needs = detectors.build(card.detector, scene, {}, bundle=Bundle(card, weights)).needs
    grid = working_grid(Grid(1200, 1000).with_gsd(0.2), needs.gsd_m, needs.own_px)
    assert grid.width * grid.height < 16**2 * 1.1 * 1200 * 1000
    layout = lay_out(grid, needs, PixelCost((256, 256), 3, 3), tile_px=None, workers=1, limit=None)
    assert layout.peak_bytes < 5e9


def whole(name: str = "heatmap") -> Bundle:
    """A model that says all that a card can say."""
    return learned.bundle(
        learned.card(
            name, thresholds={"f1": (0.5,)}, agreement={"shift_px": 0.1}, reach_px=64, unit="m", gsd=0.2,
            gsd_range=(0.1, 0.4), diameter_range=(1.0, 3.0), description="d", versions={"python": "3"},
            trained_on=({"name": "a", "places": ((1.0, 2.0),), "objects": 3},),
            metrics=({"split": "a", "f1": 0.5, "count_off": 0.1, "n": 3},),
        )
    )  # fmt: skip


def mutants(
    facts: dict[str, Any], under: str | None = None, values: list[Any] = HOSTILE
) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """Where something was changed, to what, and the card that it makes."""
    for way in places(facts):
        if under in (None, way[0]):
            yield way, "nothing", without(facts, way)
            yield from ((way, value, changed(facts, way, value)) for value in values)


def refused(made: Any, facts: dict[str, Any], way: Any, value: Any) -> bool:
    """Whether something is refused, in a sentence."""
    try:
        made(facts)
    except UserError as error:
        return "\n" not in str(error) or pytest.fail(f"{way}: {error}")
    except Exception as error:  # noqa: BLE001 - any other is what must not be
        pytest.fail(f"{way} = {str(value)[:50]!r}: {type(error).__name__}: {error}")
    return False


def test_whatever_a_card_says_it_is_described_or_refused_in_a_sentence() -> None:
    from ecodetect_cli.info import lines

    def told(facts: dict[str, Any]) -> None:
        card = dataclasses.asdict(read(facts))
        known = {"parameters": 1, "hash": "x", "megabytes": 1.0, "runtime": None}
        list(lines({"kind": "model", "card": card, **known}))
        json.dumps(card, ensure_ascii=False).encode()

    facts = facts_of(whole().card)
    told(facts)
    found = [refused(told, mutant, way, value) for way, value, mutant in mutants(facts)]
    assert 0.5 < np.mean(found) < 0.95


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in KINDS]
)
def test_options_of_a_card_are_a_detectors_own_or_refused_in_a_sentence(name: str) -> None:
    made = whole(name)
    facts = facts_of(made.card)
    used(read(facts), made.weights)

    def built(facts: dict[str, Any]) -> None:
        card = read(facts)
        if name not in LIKE_FASTER_RCNN:
            used(card, made.weights)

    found = [refused(built, mutant, way, value) for way, value, mutant in mutants(facts, "options", FEW)]
    assert np.mean(found) > 0.8


@pytest.mark.parametrize(
    "under", ["agreement", "bands", "classes", "fill", "gsd", "gsd_range", "largest", "reach_px", "unit"]
)
def test_no_card_asks_for_time_or_memory_without_end(under: str) -> None:
    made = whole()
    for way, value, mutant in mutants(facts_of(made.card), under):
        refused(lambda facts: used(read(facts), made.weights), mutant, way, value)


@pytest.mark.parametrize("name", sorted(models.known()))
def test_our_own_models_say_what_a_card_can_say(name: str) -> None:
    path = models.shipped(name)
    assert path is not None
    facts = facts_of(models.read(path).card)
    for way, value, mutant in mutants(facts, "options", FEW):
        refused(read, mutant, way, value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"schema": 1, "schema": 1}', "twice"), ("NaN", "not a number"), ('{"a": 1e999}', "too large"),
        ('{"a": ' + "9" * 5000 + "}", "too large"), ("[" * 100_000, "too deep"),
        ("[" * 30 + "]" * 30, "too deep"),
        ('"\\ud800"', "half a character"), ('{"\\u0000": 1}', "zero"),
        ("{", "isn't JSON"), ("", "isn't JSON"),
        ('"' + "x" * 5_000_000 + '"', "longer than"),
    ],
)  # fmt: skip
def test_json_that_something_later_would_trip_over_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        strict_json.read(text)


# -- weights and answers -----------------------------------------------------------------------------------


def kept(tmp_path: Path, made: Bundle) -> Path:
    bundle.write(tmp_path / "a.safetensors", made)
    return tmp_path / "a.safetensors"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_weights_that_are_no_finite_numbers_are_refused(tmp_path: Path, value: float, kind: Any) -> None:
    weights = {"a": np.zeros((3, 4), kind), "b": np.zeros(2, np.int64)}
    weights["a"][2, 1] = value
    with pytest.raises(BundleError, match=r"isn't finite \(a\)"):
        bundle.read(kept(tmp_path, Bundle(learned.card(), weights)))


@pytest.mark.parametrize(("name", "value"), [("head.bias", 3e38), ("a", -1e13), ("n.running_var", 1e25)])
def test_weights_that_no_training_makes_are_refused(tmp_path: Path, name: str, value: float) -> None:
    weights = {name: np.array([0.5, value], np.float32)}
    with pytest.raises(BundleError, match=rf"larger than training makes any \({name}\)"):
        bundle.read(kept(tmp_path, Bundle(learned.card(), weights)))


def test_what_learners_know_of_features_and_variances_may_be_large(tmp_path: Path) -> None:
    weights = {"learned.mean": np.array([1e20]), "n.running_var": np.array([1e15], np.float32)}
    assert bundle.read(kept(tmp_path, Bundle(learned.card(), weights))).weights.keys() == weights.keys()


def test_what_overflows_within_a_network_is_no_answer() -> None:
    """A clamp makes a plain 6 of what is infinite, so that the answers look sound."""
    torch = pytest.importorskip("torch")
    from ecodetect.networks.network import TrainableNetwork
    from ecodetect.runtime import torch_network

    class Plain(torch.nn.Sequential, TrainableNetwork):
        """Convolutions and a clamp."""

    module = Plain(*(torch.nn.Conv2d(4, 4, 1) for _ in range(5)), torch.nn.ReLU6())
    weights = {
        name: np.full(tuple(values.shape), 9e11, np.float32) for name, values in module.state_dict().items()
    }
    network = torch_network.open_network(Bundle(learned.card(reach_px=0), weights), module, device="cpu")
    with pytest.raises(BundleError, match="gives a value that isn't finite"):
        network.run(np.ones((1, 4, 8, 8), np.float32))


@pytest.mark.parametrize("kind", [np.bool_, np.complex64])
def test_weights_of_types_that_nothing_learns_are_refused(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(BundleError, match="of the type"):
        bundle.read(kept(tmp_path, Bundle(learned.card(), {"a": np.zeros(3, kind)})))


def test_a_variance_below_0_is_refused(tmp_path: Path) -> None:
    weights = {"norm.running_var": np.array([1.0, -1e-3], np.float16)}
    with pytest.raises(BundleError, match="variance below 0"):
        bundle.read(kept(tmp_path, Bundle(learned.card(), weights)))


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.astype(np.int32), lambda values: values.astype(np.float64) + 1e300,
        lambda values: values[..., :0], lambda values: values[None],
    ],
)  # fmt: skip
def test_weights_that_a_network_can_not_hold_are_refused(change: Any) -> None:
    pytest.importorskip("torch")
    made = learned.bundle(learned.card())
    name = max(made.weights, key=lambda name: made.weights[name].size)
    with pytest.raises(BundleError, match="aren't those of the network"):
        used(made.card, {**made.weights, name: change(made.weights[name])})


@pytest.mark.parametrize("name", [name for name in KINDS if name != "obia"])
def test_answers_that_are_no_numbers_are_refused_and_nothing_is_not_found(name: str) -> None:
    """Weights as large as they can be: each is a number, and their sums aren't."""
    pytest.importorskip("torch")
    from ecodetect.detectors import window_networks

    made = learned.bundle(learned.card(name, reach_px=64))
    huge = {
        key: np.full_like(values, 1e12) if values.ndim > 1 else values for key, values in made.weights.items()
    }
    of = Bundle(made.card, huge)
    if name in ("proposals", "sliding_window"):
        network = window_networks.open_classifier(of, "cpu", 1)
    else:
        scene = Scene(made.card.bands, None, "uint8", (0.0, 255.0))
        detector = detectors.build(name, scene, bundle=of, device="cpu")
        assert isinstance(detector, LearnedDetector)
        assert isinstance(detector.look, NetworkLook)
        network = detector.look.network
    side = 2 * network.stride
    image = np.random.default_rng(0).normal(0.5, 0.5, (1, 4, side, side)).astype(np.float32)
    with pytest.raises(BundleError, match=f"'{name}' is damaged: it gives a value that isn't finite"):
        network.run(image)


def test_a_fill_value_that_nothing_declares_is_no_fault_of_the_model() -> None:
    pixels = np.array([[[-3.4e38, np.nan, np.inf, 3.4e38, 1e20, 60.0]]], np.float32)
    found = scaled(pixels, None, Scaling(offset=(0.0,), span=(120.0,)), 0.25)
    assert found.ravel().tolist() == [0.25] * 5 + [0.5]


# -- grids and memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gsd_m", "own_px"), [(1e-3, 1.0), (1e9, 1.0), (None, 1e-3), (None, 1e6)])
def test_no_size_of_pixels_makes_a_raster_without_end(gsd_m: float | None, own_px: float) -> None:
    with pytest.raises(UserError, match="The raster would be read with pixels of"):
        working_grid(Grid(1200, 1000).with_gsd(0.2), gsd_m, own_px)


def test_memory_beyond_what_is_usual_is_asked_for_before_it_is_taken() -> None:
    needs = Needs(("red",), largest_px=20_000.0)
    grid, pixel = Grid(50_000, 50_000), PixelCost((256, 256), 3, 3)
    with pytest.raises(UserError, match=r"memory of [0-9]+MB is needed; allow that much") as said:
        lay_out(grid, needs, pixel, tile_px=None, workers=1, limit=None)
    asked = read_size(str(said.value).split("memory of ")[1].split(" ")[0])
    assert lay_out(grid, needs, pixel, tile_px=None, workers=1, limit=asked).peak_bytes <= asked

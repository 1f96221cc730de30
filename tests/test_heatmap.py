"""The heat map detector: targets and their peaks, learning, and the same answer however a raster is cut."""

from __future__ import annotations

from typing import Any

import learned
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ecodetect.annotations.sample import Objects, Sample  # noqa: E402
from ecodetect.bundle.file import Bundle, half  # noqa: E402
from ecodetect.bundle.scaling import scaled  # noqa: E402
from ecodetect.detectors import heatmap, peaks  # noqa: E402
from ecodetect.detectors import table as detectors  # noqa: E402
from ecodetect.detectors.learned import Wishes  # noqa: E402
from ecodetect.grid import Window  # noqa: E402
from ecodetect.testing import chip_of, scene_of, searched  # noqa: E402

ONE = ("grey",)


def sample(xy: Any, size: Any = np.nan, side: int = 64, **masks: Any) -> Sample:
    places = np.asarray(xy, np.float64).reshape(-1, 2)
    n, everywhere = len(places), np.ones((side, side), bool)
    objects = Objects.about(
        places, np.full((n, 2), size), np.zeros(n, np.int64), masks.pop("accuracy", np.zeros(n))
    )
    return Sample(
        masks.pop("image", np.zeros((1, side, side), np.float32)),
        masks.pop("valid", everywhere),
        masks.pop("known", everywhere),
        masks.pop("ignored", ~everywhere),
        objects,
    )


@pytest.mark.parametrize("up", [1, 2])
def test_peaks_of_targets_are_the_objects(up: int) -> None:
    rng = np.random.default_rng(0)
    xy = np.stack(np.meshgrid(np.arange(8.0, 60, 12), np.arange(8.0, 60, 12)), -1).reshape(-1, 2)
    xy += rng.uniform(-1, 1, xy.shape)
    options = {"network": {**learned.TINY, "up": up}, "sized": True, "typical_px": 8.0}
    card = learned.card(bands=ONE, options=options)
    made = heatmap.targets(sample(xy, 6.0), card)
    maps = np.concatenate([made["heat"], made["log_size"]])[None]
    ((found, score, label, size),) = heatmap.decode([maps], card)
    off = np.linalg.norm(found[:, None] - xy[None], axis=2)
    assert len(found) == len(xy)
    assert off.min(axis=1).max() < 0.01
    assert score.min() > 0.9
    assert not label.any()
    assert size == pytest.approx(np.full(len(xy), 6.0), rel=1e-5)


def test_two_pixels_of_equal_height_are_one_peak_between_them() -> None:
    heat = np.zeros((9, 9), np.float32)
    heat[3:6, 3:7] = [[0.2, 0.5, 0.5, 0.2], [0.4, 0.8, 0.8, 0.4], [0.2, 0.5, 0.5, 0.2]]
    (rows, columns) = peaks.find(heat)
    assert len(rows) == 1
    assert peaks.refine(heat, rows, columns) == pytest.approx(np.array([[5.0, 4.5]]))
    for change in (1e-6, -1e-6):
        other = heat.copy()
        other[4, 4] += change
        place = peaks.refine(other, *peaks.find(other))
        assert place == pytest.approx(np.array([[5.0, 4.5]]), abs=1e-4)


def test_a_large_object_lies_in_the_middle_of_its_plateau_wherever_its_highest_pixel_is() -> None:
    y, x = np.mgrid[0:80, 0:80] + 0.5
    heat = np.clip(1.5 - np.hypot(x - 40.3, y - 35.6) / 12, 0, 0.8).astype(np.float32)
    at = np.array([[45.5, 38.5]])  # a ripple, 5.9 px off the middle
    near = peaks.centred(heat, np.concatenate([at, at]), np.array([16.0, 16.0]))
    assert np.hypot(*(near - (40.3, 35.6)).T).max() < 3.9
    # Where one lies doesn't hang on how many there are, and nothing lies beyond the map.
    assert near[0].tolist() == near[1].tolist() == peaks.centred(heat, at, np.array([16.0]))[0].tolist()
    empty = np.zeros((20, 20), np.float32)
    assert peaks.centred(empty, np.array([[0.5, 7.5]]), np.array([3.0])).tolist() == [[0.5, 7.5]]
    assert peaks.centred(heat, np.empty((0, 2)), np.empty(0)).shape == (0, 2)


def test_what_is_unknown_or_doubtful_teaches_nothing() -> None:
    known = np.zeros((64, 64), bool)
    known[:, :20] = True
    ignored = np.zeros((64, 64), bool)
    ignored[:10] = True
    card = learned.card(bands=ONE)
    counted = heatmap.targets(sample([[50, 40]], known=known, ignored=ignored), card)["counted"][0] > 0
    assert counted[10:, :20].all()
    assert not counted[:10].any()
    assert counted[40, 50]
    assert not counted[20:30, 30:40].any()
    outputs = torch.full((1, 1, 64, 64), 0.7)
    target = {
        "heat": torch.zeros(1, 1, 64, 64),
        "weight": torch.zeros(1, 1, 64, 64),
        "counted": torch.zeros(1, 1, 64, 64),
    }
    assert heatmap.losses(outputs, target, card)["heat"] == 0


def test_an_uncertain_place_gets_a_wider_target() -> None:
    card = learned.card(bands=ONE)
    sure = heatmap.targets(sample([[32, 32]]), card)["heat"]
    vague = heatmap.targets(sample([[32, 32]], accuracy=np.array([4.0])), card)["heat"]
    assert (vague > 0.5).sum() > 3 * (sure > 0.5).sum()


def test_options_follow_the_annotations() -> None:
    few = heatmap.card_options(np.full(40, np.nan), np.full(40, 12.0))
    assert few["network"]["up"] == 1
    assert not few["sized"]
    dense = heatmap.card_options(np.full(40, 8.0), np.full(40, 2.0))
    assert dense["network"]["up"] == 2
    assert dense["sized"]
    assert (dense["sigma_px"], dense["sigma_share"], dense["smooth_px"]) == (1.6, 0.2, 0.8)
    close = heatmap.card_options(np.full(40, np.nan), np.full(40, 2.0))
    assert (close["sigma_px"], close["sigma_share"]) == (heatmap.SIGMA_PX[0], 0.0)
    kept = heatmap.card_options(np.empty(0), np.empty(0), Wishes(network={"width": 24}))
    assert (kept["network"]["width"], kept["network"]["kind"]) == (24, "unet")


def test_small_and_large_objects_are_each_one_peak() -> None:
    diameter = np.array([4.0, 6.0, 6.0, 15.0, 40.0, 60.0])
    xy = np.array([[10.5, 10.2], [20.3, 12.0], [26.0, 12.4], [50.0, 15.0], [40.0, 60.0], [95.0, 95.0]])
    options = heatmap.card_options(np.repeat(diameter, 5), np.repeat(8.0, 30))
    card = learned.card(bands=ONE, options={**options, "network": learned.TINY})
    made = heatmap.targets(sample(xy, np.stack([diameter, diameter], 1), 128), card)
    weights = [made["weight"][0, int(y), int(x)] for x, y in xy]
    assert min(weights[:3]) > weights[3] > max(weights[4:])  # the smaller, the more each pixel counts
    # A network is unsure about large ones: ripples on their plateau.
    ripples = np.random.default_rng(0).normal(0, 0.1, made["heat"].shape).astype(np.float32)
    heat = made["heat"] * (1 - np.abs(ripples))
    ((found, score, _, size),) = heatmap.decode([np.concatenate([heat, made["log_size"]])[None]], card)
    found, size = found[score > 0.5], size[score > 0.5]
    off = np.linalg.norm(found[:, None] - xy[None], axis=2)
    assert len(found) == len(xy)
    assert off.min(axis=0).max() < 2.0
    assert size[off.argmin(axis=0)] == pytest.approx(diameter, rel=0.01)


@pytest.mark.parametrize("up", [1, 2])
def test_the_density_counts_what_cannot_be_told_apart(up: int) -> None:
    xy = np.array([[30.0, 30.0], [30.5, 30.0], [31.0, 30.5], [45.2, 20.1]])
    options = {"network": {**learned.TINY, "up": up}, "density_px": 2.0}
    card = learned.card(bands=ONE, classes=("a", "b"), options=options)
    there = sample(xy)
    there.objects.label[3] = 1
    made = heatmap.targets(there, card)
    maps = np.concatenate([made["heat"], made["density"]])[None]
    assert heatmap.density([maps], card).sum(axis=(2, 3)) == pytest.approx(np.array([[3.0, 1.0]]), rel=0.01)
    ((found, _, label, _),) = heatmap.decode([maps], card)
    assert len(found) < len(xy)
    assert set(label) == {0, 1}


def test_an_individual_at_the_edge_of_the_data_counts_whole() -> None:
    card = learned.card(bands=ONE, options={"network": learned.TINY, "density_px": 2.0})
    there = sample(np.array([[0.5, 30.0], [20.5, 20.5]]))
    there.valid[:, 21:] = False
    made = heatmap.targets(there, card)
    assert not made["density"][:, :, 21:].any()
    counted = heatmap.density([np.concatenate([made["heat"], made["density"]])[None]], card).sum()
    assert counted == pytest.approx(1.6, abs=0.1)  # the array's own edge is a chip's: the rest lies beyond


def test_the_sum_of_a_density_is_made_right_on_annotated_ground() -> None:
    pytest.importorskip("torch")
    card = learned.card(bands=ONE, options={"network": learned.TINY, "density_px": 2.0})
    bundle = learned.bundle(card)
    rng = np.random.default_rng(0)
    pieces = [
        sample(rng.uniform(8, 56, (30, 2)), image=rng.normal(0.5, 0.3, (1, 64, 64)).astype(np.float32))
        for _ in range(3)
    ]
    made = heatmap.calibrated(bundle, pieces[:2], pieces[2:])
    opened = heatmap.open_heatmap(bundle, "cpu", None)
    sums = [heatmap.density(opened.run(each.image[None]), made).sum() for each in pieces]
    assert sum(sums) == pytest.approx(90, rel=0.01)
    plain = learned.card(bands=ONE, options={"network": learned.TINY})
    assert heatmap.calibrated(learned.bundle(plain), pieces, []) == plain


def test_only_dense_scenes_learn_a_density() -> None:
    assert heatmap.card_options(np.full(40, np.nan), np.full(40, 2.0))["density_px"] == heatmap.SIGMA_PX[0]
    assert heatmap.card_options(np.full(40, np.nan), np.full(40, 12.0))["density_px"] == 0


def test_of_peaks_in_one_middle_the_highest_counts_and_chains_do_not_matter() -> None:
    xy = np.array([[0.0, 0.0], [3.0, 0.0], [6.0, 0.0], [20.0, 0.0]])
    kept = peaks.highest(xy, np.array([0.9, 0.8, 0.7, 0.6]), np.array([4.0, 4.0, 4.0, 4.0]))
    assert kept.tolist() == [True, False, False, True]
    kept = peaks.highest(xy, np.array([0.9, 0.8, 0.7, 0.6]), np.array([2.0, 2.0, 4.0, 4.0]))
    assert kept.all()
    assert peaks.highest(np.empty((0, 2)), np.empty(0), np.empty(0)).tolist() == []


def test_it_learns_a_picture_and_finds_it_again_in_any_tiles() -> None:
    rng = np.random.default_rng(1)
    side = 96
    xy = np.stack(np.meshgrid(np.arange(9.0, 92, 15), np.arange(9.0, 92, 15)), -1).reshape(-1, 2)
    xy += rng.uniform(-3, 3, xy.shape)
    y, x = np.mgrid[:side, :side] + 0.5
    is_dark = (np.hypot(x[..., None] - xy[:, 0], y[..., None] - xy[:, 1]) < 3.5).any(-1)
    pixels = (np.where(is_dark, 30, 90) + rng.normal(0, 4, (1, side, side))).astype(np.uint8)
    card = learned.card(bands=ONE, options={"sized": True, "typical_px": 7.0})
    truth = sample(xy, 7.0, side, image=scaled(pixels, None, card.scaling, card.fill))
    target = {name: torch.from_numpy(values)[None] for name, values in heatmap.targets(truth, card).items()}
    torch.manual_seed(0)
    network = heatmap.network(card)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    image = torch.from_numpy(truth.image)[None]
    for _ in range(50):
        loss = torch.stack(list(heatmap.losses(network(image), target, card).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    made = Bundle(card, half({name: values.numpy() for name, values in network.state_dict().items()}))
    detector = detectors.build("heatmap", scene_of(pixels, ONE), bundle=made, device="cpu")
    (found,) = detector.detect([chip_of(pixels, None, ONE, Window(0, 0, side, side))])
    found = found[found.score > 0.5]
    off = np.linalg.norm(found.geometry[:, None] - xy[None], axis=2)
    assert len(found) == len(xy)
    assert off.min(axis=0).max() < 1.0
    assert found.diameter == pytest.approx(np.full(len(xy), 7.0), rel=0.2)
    whole = np.array(searched(detector, pixels, None, ONE, 256))
    for tile, origin in ((32, (0, 0)), (48, (20, 8))):
        tiled = np.array(searched(detector, pixels, None, ONE, tile, origin))
        for one, two in ((whole, tiled), (tiled, whole)):
            apart = np.abs(one[:, None] - two[None])
            nearest = apart[:, :, 1:3].max(axis=2).argmin(axis=1)
            difference = apart[np.arange(len(one)), nearest]
            assert difference[:, 0].max() < 1e-4
            assert difference[:, 1:3].max() < 0.01
    agreement = heatmap.measure_agreement(made, truth.image)
    assert agreement["n"] >= 4
    assert agreement["shift_px"] < 0.01
    assert agreement["score"] < 1e-4
    assert agreement["alone"] == 0


def test_a_picture_brighter_throughout_gives_the_same_once_surveyed() -> None:
    from ecodetect.bundle.card import Scaling

    card = learned.card(bands=ONE, scaling=Scaling(mode="survey", offset=(0.0,), span=(1.0,)))
    made = learned.bundle(card)
    pixels = np.random.default_rng(3).integers(0, 100, (1, 64, 64)).astype(np.uint16)
    rows = []
    for values in (pixels, pixels * 300 + 1000):
        detector = detectors.build("heatmap", scene_of(values, ONE), bundle=made, device="cpu")
        chip = chip_of(values, None, ONE, Window(0, 0, 64, 64))
        assert detector.needs.survey
        (found,) = detector.surveyed([chip]).detect([chip])
        rows.append(np.column_stack([found.geometry, found.score]))
    assert rows[0] == pytest.approx(rows[1], abs=1e-3)


def test_the_maps_of_many_classes_count_in_the_memory_it_needs() -> None:
    def needed(classes: int) -> int:
        names = tuple(f"class {k}" for k in range(classes))
        scene = scene_of(np.zeros((4, 8, 8), np.uint8), ("red", "green", "blue", "nir"))
        bundle = learned.bundle(learned.card(classes=names))
        return detectors.build("heatmap", scene, bundle=bundle, device="cpu").needs.bytes_per_pixel

    assert needed(2) == needed(1)
    assert needed(500) > needed(1) + 4 * 490  # float32 of each map

"""The search of one raster: the same detections however it is cut, worked and resumed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_raster import MemoryRaster
from pyproj import CRS

from ecodetect.detections import Detections
from ecodetect.errors import UserError
from ecodetect.grid import Grid
from ecodetect.scanning.journal import Journal
from ecodetect.scanning.question import prepare
from ecodetect.scanning.searching import entered, identities, search, searched, survivors
from ecodetect.scanning.settings import Settings
from ecodetect.scanning.verification import verify

GRID = Grid(300, 260, (0.5, 0.0, 500_000.0, 0.0, -0.5, 4_000_000.0), CRS.from_epsg(32630))


def scene(seed=0, valid=True):
    """Dark rectangles, some touching, on noisy light ground, with a corner of nodata."""
    rng = np.random.default_rng(seed)
    grey = rng.integers(150, 220, (260, 300), dtype=np.uint8)
    for _ in range(60):
        x, y, w, h = (int(v) for v in rng.integers([0, 0, 4, 4], [295, 255, 22, 22]))
        grey[y : y + h, x : x + w] = rng.integers(20, 80)
    mask = None
    if valid:
        mask = np.ones(grey.shape, bool)
        mask[:60, :80] = False
    return MemoryRaster(grey[None], GRID, ("grey",), mask)


def run(raster, path, asked):
    journal = Journal(path)
    plan = entered(prepare(raster, asked), journal, asked)
    search(plan, raster, journal, None)
    found = list(survivors(plan, journal))
    facts = searched(plan, journal)
    journal.discard()
    empty = Detections.empty(plan.native, plan.detector.kind, plan.detector.classes)
    return (Detections.concatenate(found) if found else empty), facts[:2]


def same(one, two):
    assert len(one) == len(two)
    assert one.bounds().tolist() == two.bounds().tolist()
    assert one.score.tolist() == two.score.tolist()
    assert [g.wkb for g in one.shapes()] == [g.wkb for g in two.shapes()]


@settings(max_examples=6)
@given(
    st.integers(0, 5),
    st.integers(16, 320),
    st.integers(1, 4),
    st.sampled_from(["threshold", "blobs"]),
    st.sampled_from([{}, {"split": "yes"}, {"level": "local"}]),
)
def test_tiling_cannot_be_seen(tmp_path_factory, seed, tile, workers, model, options):
    folder = tmp_path_factory.mktemp("journals")
    options = {"largest": "40px", **options} if model == "threshold" else {}
    raster = scene(seed)
    whole = Settings(model=model, options=options, tile_px=512, workers=1)
    cut = Settings(model=model, options=options, tile_px=tile, workers=workers)
    expected, area = run(raster, folder / "whole", whole)
    got, got_area = run(raster, folder / "cut", cut)
    assert len(expected) > 5
    same(got, expected)
    assert got_area == area


def test_a_search_goes_on_where_it_stopped(tmp_path):
    raster = scene()
    asked = Settings(model="threshold", options={"largest": "40px"}, tile_px=64, workers=1)
    expected, _ = run(raster, tmp_path / "whole", asked)
    path = tmp_path / "j"
    journal = Journal(path)
    plan = entered(prepare(raster, asked), journal, asked)

    class Stop(Exception):
        pass

    def stop(name, done, total):
        if done > 0:
            raise Stop

    with pytest.raises(Stop):
        search(plan, raster, journal, stop)
    done = journal.done(plan.number)
    assert 1 <= len(done) <= len(plan.cuts)
    journal.close()
    journal = Journal(path)
    again = entered(prepare(raster, asked), journal, asked)
    assert again.number == plan.number
    search(again, raster, journal, None)
    same(Detections.concatenate(list(survivors(again, journal))), expected)
    journal.discard()


def test_area_searched_counts_valid_ground_only(tmp_path):
    _, (pixels, hectares) = run(
        scene(), tmp_path / "j", Settings(model="threshold", options={"largest": "40px"})
    )
    assert pixels == 300 * 260 - 60 * 80
    assert hectares == pytest.approx(pixels * 0.25 / 1e4, rel=2e-3)  # UTM's scale on the ground


def test_a_search_goes_on_with_the_cuts_it_began_with(tmp_path):
    """Whatever memory or cores there are now."""
    asked = Settings(model="threshold", options={"largest": "40px"})
    journal = Journal(tmp_path / "j")
    plan = prepare(scene(), asked)
    before = entered(plan, journal, asked)
    smaller = replace(plan.cuts, tile_px=128, tiles_per_unit=1, offset_px=37)
    after = entered(plan.with_cuts(smaller), journal, asked)
    assert (after.cuts, after.number) == (before.cuts, before.number)
    journal.discard()


def test_verify_finds_the_same_again(tmp_path):
    raster = scene()
    asked = Settings(model="threshold", options={"largest": "40px"}, tile_px=64)
    journal = Journal(tmp_path / "j")
    plan = entered(prepare(raster, asked), journal, asked)
    search(plan, raster, journal, None)
    share, _ = verify(plan, raster, journal)
    assert share == 1.0
    journal.discard()


def test_objects_at_one_place_get_different_names():
    name = identities("abcdef0123456789")
    assert name(np.array([[10.0, 5.0], [10.05, 5.01], [20.0, 5.0]])) == [
        "abcdef01-50-28",
        "abcdef01-50-28-2",
        "abcdef01-a0-28",
    ]
    assert name(np.array([[10.0, 5.1], [10.0, 6.0]])) == ["abcdef01-50-28-3", "abcdef01-50-30"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tile_px": -5}, "width of a tile in px must be at least 16"),
        ({"gsd_m": -1}, "pixel size must be a positive number"),
        ({"score": 2.0}, "score must lie between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_used(settings, words):
    with pytest.raises(UserError, match=words):
        Settings(model="threshold", **settings)


def test_too_little_memory_is_said_with_what_would_do():
    with pytest.raises(UserError, match=r"the least that works is \d+MB"):
        prepare(scene(), Settings(model="threshold", max_memory=10_000_000))

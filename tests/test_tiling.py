"""Tiling can't be seen: cores partition the raster, and an oracle's objects come back once each."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ecodetect.detections import Detections
from ecodetect.grid import Grid, Window
from ecodetect.scanning.tiling import cut_grid

cuts = st.fixed_dictionaries(
    {
        "width": st.integers(1, 700),
        "height": st.integers(1, 700),
        "tile_px": st.integers(16, 300),
        "unit_px": st.integers(16, 700),
        "stride_px": st.sampled_from([1, 8, 32]),
        "largest_px": st.integers(1, 120),
        "offset": st.booleans(),
        "is_clipped": st.booleans(),
    }
)


def make(c):
    grid = Grid(c["width"], c["height"])
    tile = -(-c["tile_px"] // c["stride_px"]) * c["stride_px"]
    made = cut_grid(
        grid,
        tile_px=c["tile_px"],
        unit_px=c["unit_px"],
        largest_px=c["largest_px"],
        reach_px=2,
        margin_px=1,
        stride_px=c["stride_px"],
        is_clipped=c["is_clipped"],
    )
    offset = tile // 2 // c["stride_px"] * c["stride_px"] if c["offset"] else 0
    return grid, replace(made, offset_px=offset)


@given(cuts)
def test_cores_partition_the_raster(c):
    grid, cut = make(c)
    painted = np.zeros((grid.height, grid.width), np.uint8)
    for number in cut.walk():
        unit = cut.unit(number)
        assert unit.number == number
        for tile in unit.tiles:
            core = tile.core
            painted[core.y : core.bottom, core.x : core.right] += 1
            assert core.clipped(unit.core) == core
            assert tile.read.clipped(unit.read) == tile.read
    assert (painted == 1).all()
    assert sorted(cut.walk()) == list(range(len(cut)))


@given(cuts)
def test_reads_have_one_size_and_origins_on_the_stride(c):
    _, cut = make(c)
    tiles = [tile for number in cut.walk() for tile in cut.unit(number).tiles]
    if not c["is_clipped"]:
        assert {(tile.read.width, tile.read.height) for tile in tiles} == {(cut.chip_px, cut.chip_px)}
    assert all(tile.read.x % c["stride_px"] == 0 and tile.read.y % c["stride_px"] == 0 for tile in tiles)
    assert all(tile.read.width % c["stride_px"] == cut.chip_px % c["stride_px"] for tile in tiles)
    assert sum(tile.read.area for tile in tiles) == cut.seen_px
    assert cut.halo_px >= c["largest_px"] / 2


@given(cuts)
def test_beyond_the_raster_no_more_is_read_than_is_seen(c):
    """All of the raster within the halo is, and beyond it what a filter sees and less than a stride."""
    grid, whole = make({**c, "is_clipped": False})
    cut = make({**c, "is_clipped": True})[1]
    beyond = 4  # reach, margin and a pixel of rounding
    near, far = grid.window.grown(beyond), grid.window.grown(beyond + c["stride_px"] - 1)
    for number in cut.walk():
        for tile, full in zip(cut.unit(number).tiles, whole.unit(number).tiles, strict=True):
            assert tile.core == full.core
            assert tile.read.clipped(full.read.clipped(far)) == tile.read
            wanted = full.read.clipped(near)
            assert wanted.clipped(tile.read) == wanted


@settings(max_examples=30)
@given(cuts, st.sampled_from(["point", "box", "polygon"]), st.integers(0, 2**32 - 1))
def test_an_oracle_finds_every_object_once(c, kind, seed):
    """Each tile sees what lies wholly in its read window; ownership by centre makes the sets identical."""
    import shapely

    grid, cut = make(c)
    rng = np.random.default_rng(seed)
    n = 60
    # Corners on whole pixels put many centres exactly on the edges of cores.
    low = np.stack([rng.integers(0, grid.width, n), rng.integers(0, grid.height, n)], axis=1)
    high = np.minimum(low + rng.integers(1, c["largest_px"] + 1, (n, 2)), [grid.width, grid.height])
    boxes = np.unique(np.hstack([low, high]).astype(float), axis=0)
    found = []
    for number in cut.walk():
        for tile in cut.unit(number).tiles:
            read = tile.read
            seen = boxes[
                (boxes[:, 0] >= read.x)
                & (boxes[:, 1] >= read.y)
                & (boxes[:, 2] <= read.right)
                & (boxes[:, 3] <= read.bottom)
            ] - [read.x, read.y, read.x, read.y]
            geometry = {
                "point": (seen[:, :2] + seen[:, 2:]) / 2,
                "box": seen,
                "polygon": np.array([shapely.box(*b) for b in seen], dtype=object),
            }[kind]
            chip_grid = grid.crop(read)
            score, label = np.ones(len(seen)), np.zeros(len(seen), np.int64)
            local = Detections(chip_grid, kind, geometry, score, label, ("object",))
            whole = local.shifted(read.x, read.y, grid)
            found.append(whole[tile.core.owns(whole.centres())])
    got = Detections.concatenate(found)
    key = got.centres() if kind == "point" else got.bounds()
    expected = (boxes[:, :2] + boxes[:, 2:]) / 2 if kind == "point" else boxes
    assert sorted(map(tuple, key)) == sorted(map(tuple, expected))


def test_a_window_owns_its_left_edge_and_not_its_right():
    xy = np.array([[0.0, 0.0], [10.0, 5.0], [9.999, 9.999], [5.0, 10.0]])
    assert Window(0, 0, 10, 10).owns(xy).tolist() == [True, False, True, False]

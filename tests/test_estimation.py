"""Estimates with intervals: the worked example, what must add up, and how often the truth lies inside."""

from __future__ import annotations

import numpy as np
import pytest
from clumped_ground import Ground, clumped
from hypothesis import given
from hypothesis import strategies as st

from ecodetect.estimation import forecasting, ordering, shares, strata
from ecodetect.estimation.abundance import Abundance, Plots, abundance
from ecodetect.estimation.design import Design
from ecodetect.estimation.drawing import drawn

# Four strata; x detections, y individuals and the right detections of 13 checked plots.
STRATUM = [0] * 4 + [1] * 3 + [2] * 3 + [3] * 3
X = np.array([0, 0, 0, 0, 1, 2, 1, 4, 5, 4, 11, 14, 10.0])
Y = np.array([0, 0, 1, 0, 1, 1, 2, 5, 5, 3, 12, 13, 12.0])
RIGHT = np.array([0, 0, 0, 0, 1, 1, 1, 4, 5, 3, 10, 13, 10.0])
DESIGN = Design.of([60, 30, 20, 10], STRATUM)
PLOTS = Plots(np.array([0, 45, 90, 120.0]), Y, X, Y - RIGHT, X - RIGHT)

six = pytest.approx  # of figures printed with six digits behind the point


def test_the_worked_example_has_rs_figures() -> None:
    """By R's survey 4.1-1 (svytotal, svyby, svyratio), and the limits by hand in R."""
    found = abundance(DESIGN, PLOTS)
    assert found.interval.value == six(276.666667, abs=5e-7)
    assert found.se == six(25.451479, abs=5e-7)
    assert found.variance == six([210, 270, 113.333333, 54.444444], abs=5e-7)
    assert (found.dispersion.missed, found.dispersion.false) == (1, 1)
    assert found.distances.up_empty == six(67.601320, abs=5e-7)
    assert found.distances.down_empty == six(11.933293, abs=5e-7)
    assert found.distances.up == six(65.777639, abs=5e-7)
    assert found.distances.down == six(61.252648, abs=5e-7)
    assert (found.interval.low, found.interval.high) == six((214.262417, 370.988648), abs=5e-7)
    assert found.counted == 55
    alone = abundance(DESIGN, PLOTS, uses_detections=False)
    assert (alone.total, alone.se) == six((265.0, 21.421692), abs=5e-7)


def test_precision_and_recall_of_the_worked_example() -> None:
    precision = shares.precision(DESIGN, PLOTS)
    assert precision is not None
    limits = precision.interval
    assert (limits.value, precision.se) == six((0.904110, 0.045073), abs=5e-7)
    assert (limits.low, limits.high) == six((0.712284, 0.972906), abs=5e-7)
    weighted = shares.ratio(DESIGN, RIGHT, Y)
    assert weighted is not None
    assert (weighted.interval.value, weighted.se) == six((0.830189, 0.062314), abs=5e-7)
    missed = shares.missed_total(DESIGN, PLOTS)
    assert (missed.value, missed.low, missed.high) == six((45.0, 17.084999, 124.906159), abs=5e-7)
    recall = shares.recall(DESIGN, PLOTS)
    assert recall is not None
    assert (recall.value, recall.low, recall.high) == six((0.836689, 0.645327, 0.931512), abs=5e-7)


def test_occupied_cells_and_the_forecast_of_the_worked_example() -> None:
    cells = np.array([0, 30, 20, 10.0])
    found = abundance(DESIGN, Plots.counted(cells, (Y > 0) * 1.0, (X > 0) * 1.0)).interval
    assert (found.value, found.low, found.high) == six((75.0, 54.598137, 146.605990), abs=5e-7)
    assert shares.occupied(DESIGN, PLOTS, cells).high == 120  # there are no more cells
    widths = [forecasting.half_width(DESIGN, PLOTS, more) for more in (10, 20, 40)]
    assert widths == six([46.775899, 33.621275, 21.282596], abs=5e-7)


def test_the_order_of_cells_is_the_same_on_every_machine() -> None:
    cells = np.arange(24)
    order = ordering.ordered(cells % 6, cells // 6, seed=1, name="0")
    assert order.tolist() == [
        *(23, 7, 18, 20, 10, 3, 19, 21, 16, 6, 13, 14, 11, 9, 1, 17, 5, 2, 12, 15, 4, 8, 0, 22)
    ]


def test_strata_and_plots_of_the_worked_example() -> None:
    x = [0] * 12 + [1, 1, 1, 2, 2, 3, 4, 6, 9, 14, 20, 31]
    stratum = strata.stratified(x, 20)
    assert stratum.tolist() == [0] * 12 + [1] * 6 + [2] * 4 + [3] * 2
    weights = np.bincount(stratum, strata.spread(x))
    turns = strata.turns(np.bincount(stratum), weights, 14)
    assert np.bincount(turns).tolist() == [4, 4, 4, 2]


# -- what holds of any ground ------------------------------------------------------------------------------

grounds = st.builds(
    clumped,
    seed=st.integers(0, 10_000),
    side=st.integers(9, 16),
    mean=st.sampled_from([0.1, 1.0, 5.0]),
    recall=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
)
numbers = st.integers(10, 30)


def estimated(ground: Ground, n: int, *, seed: int = 0) -> tuple[Design, Plots, Abundance]:
    """Plots drawn on the ground and checked without an error."""
    draw = drawn(ground.detections, ground.columns, ground.rows, n, seed=seed)
    design, plots = checked(ground, draw.plots, draw.stratum, len(draw.names))
    return design, plots, abundance(design, plots)


def checked(ground: Ground, cells: np.ndarray, stratum: np.ndarray, number: int) -> tuple[Design, Plots]:
    design = Design.of(np.bincount(stratum, minlength=number), stratum[cells])
    x, y, right = (each[cells] for each in (ground.detections, ground.individuals, ground.right))
    detected = np.bincount(stratum, ground.detections, minlength=number)
    return design, Plots(detected, y, x, y - right, x - right)


@given(grounds, numbers)
def test_the_number_lies_between_its_limits_and_never_below_what_was_counted(ground: Ground, n: int) -> None:
    _, plots, found = estimated(ground, n)
    limits = found.interval
    assert limits.low <= limits.value <= limits.high
    assert limits.low >= found.counted == plots.individuals.sum()


@given(grounds)
def test_with_all_cells_checked_the_number_is_the_truth(ground: Ground) -> None:
    _, _, found = estimated(ground, len(ground.detections))
    truth = ground.individuals.sum()
    assert found.interval.value == pytest.approx(truth)
    assert (found.interval.low, found.interval.high) == pytest.approx((truth, truth))
    assert found.se == pytest.approx(0, abs=1e-9)


@given(grounds, numbers)
def test_polygons_that_part_the_ground_add_up(ground: Ground, n: int) -> None:
    draw = drawn(ground.detections, ground.columns, ground.rows, n, seed=1)
    design, plots = checked(ground, draw.plots, draw.stratum, len(draw.names))
    whole = abundance(design, plots)
    total = 0.0
    for is_left in (True, False):
        inside = (ground.columns < ground.columns.max() / 2) == is_left
        x, y = np.where(inside, ground.detections, 0), np.where(inside, ground.individuals, 0)
        part = Plots.counted(
            np.bincount(draw.stratum, x, minlength=len(draw.names)), y[draw.plots], x[draw.plots]
        )
        total += abundance(
            design, part, uses_detections=whole.uses_detections, clumping=whole.dispersion
        ).total
    assert total == pytest.approx(whole.total)


@given(grounds, numbers, st.integers(1, 25))
def test_more_plots_keep_the_first_ones(ground: Ground, n: int, more: int) -> None:
    first = drawn(ground.detections, ground.columns, ground.rows, n, seed=2)
    longer = drawn(ground.detections, ground.columns, ground.rows, n, seed=2, more=more)
    assert longer.plots[: len(first.plots)].tolist() == first.plots.tolist()
    assert len(set(longer.plots.tolist())) == len(longer.plots)
    assert len(longer.plots) == min(len(first.plots) + more, len(ground.detections))


@given(grounds, numbers, st.randoms(use_true_random=False))
def test_the_order_in_which_cells_come_changes_nothing(ground: Ground, n: int, random: object) -> None:
    shuffled = np.arange(len(ground.detections))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    places = list(zip(ground.columns.tolist(), ground.rows.tolist(), strict=True))
    one = drawn(ground.detections, ground.columns, ground.rows, n)
    other = drawn(ground.detections[shuffled], ground.columns[shuffled], ground.rows[shuffled], n)
    assert [places[cell] for cell in one.plots] == [places[shuffled[cell]] for cell in other.plots]


@given(grounds, st.integers(12, 40))
def test_every_polygon_with_strata_of_its_own_gets_six_plots(ground: Ground, n: int) -> None:
    polygon = (ground.columns > ground.columns.max() / 3).astype(np.int64)
    draw = drawn(ground.detections, ground.columns, ground.rows, n, polygons=polygon, names=("west", "east"))
    assert np.bincount(polygon[draw.plots], minlength=2).min() >= 6
    assert {name.rpartition("/")[0] for name in draw.names} == {"west", "east"}


def test_the_first_plots_are_one_of_each_stratum() -> None:
    ground = clumped(seed=0, side=30, mean=2.0, recall=0.7)
    draw = drawn(ground.detections, ground.columns, ground.rows, 40)
    of_plots = draw.stratum[draw.plots]
    number = len(draw.names)
    assert of_plots[:number].tolist() == list(range(number))
    assert of_plots[number : 2 * number].tolist() == list(range(number))


def test_detections_that_do_harm_are_left_out_from_twenty_plots_on() -> None:
    random = np.random.default_rng(0)
    y = random.poisson(5, 30).astype(float)
    x = random.poisson(40, 30).astype(float)
    for n, uses in ((19, True), (30, False)):
        design = Design.of([500], np.zeros(n, int))
        assert abundance(design, Plots.counted(np.array([20_000.0]), y[:n], x[:n])).uses_detections == uses


@pytest.mark.slow
def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    inside = []
    for number in range(400):
        ground = clumped(seed=number // 100, side=30, mean=2.0, recall=0.7)
        _, _, found = estimated(ground, 20, seed=number)
        inside.append(found.interval.low <= ground.individuals.sum() <= found.interval.high)
    assert 0.93 <= np.mean(inside) <= 1

"""What no plot shows: individuals that a checker misses, or that nobody can see on the picture."""

from __future__ import annotations

import math

import numpy as np

from ecodetect import matching
from ecodetect.errors import UserError
from ecodetect.estimation.design import Design, Interval
from ecodetect.estimation.results import Observers
from ecodetect.estimation.shares import ratio
from ecodetect.estimation.tallying import Marked

FEWEST = 5  # plots that a second person checks


def observed(first: Marked, second: Marked, level: float) -> Observers:
    """The share of what a second person marked that the first one marked too.

    second : in the first plots in their order, up to the last that has a mark, and at least five.
    Raises UserError where too few plots are in common, or nothing tells which individuals are the same.
    """
    record = first.record
    if record.within is None:
        raise UserError(
            "Two persons' individuals are matched by place: draw the plots with the distance that two marks"
            " of one individual may have.",
            parameter="within",
        )
    last = max(int(second.plot.max(initial=-1)) + 1, FEWEST)
    plots = first.used[first.used < last]
    if len(plots) < FEWEST:
        raise UserError(
            f"A second person's marks need {FEWEST} plots that the first has done, in their order; there are"
            f" {len(plots)}."
        )
    marked = (second.individuals.verdicts != "false") & np.isin(second.plot, plots)
    of_first = first.individuals.verdicts != "false"
    pairs = matching.assign(
        matching.by_distance(
            second.individuals.xy[marked], first.individuals.xy[of_first], record.within, unit="m"
        )
    )
    where = second.plot[marked]
    number = {plot: index for index, plot in enumerate(plots.tolist())}
    index = np.array([number[plot] for plot in where.tolist()], np.int64)
    both = np.bincount(index[pairs.detection], minlength=len(plots)).astype(np.float64)
    whole = np.bincount(index, minlength=len(plots)).astype(np.float64)
    design = Design.of([record.cells.sum()], np.zeros(len(plots)), level)
    found = ratio(design, both, whole)
    if found is None or not found.interval.value > 0:
        raise UserError("The second person marked nothing in these plots that the first one did.")
    return Observers(found.interval, len(plots), int(whole.sum()))


def divided(number: Interval, share: Interval) -> Interval:
    """A number of which only a share was seen: distances in quadrature, on the logarithm."""
    value = number.value / share.value
    if not number.value > 0:
        return Interval(value, number.low / share.value, number.high / max(share.low, 1e-9))
    down = math.hypot(math.log(number.value / max(number.low, 1e-9)), math.log(share.high / share.value))
    up = math.hypot(math.log(number.high / number.value), math.log(share.value / max(share.low, 1e-9)))
    return Interval(value, value * math.exp(-down), value * math.exp(up))


def share_of(visible: tuple[float, float], z: float) -> Interval:
    """A share from elsewhere with its standard error; raises UserError where it is none."""
    value, se = visible
    if not (0 < value <= 1 and 0 <= se < 1):
        raise UserError(
            f"The share that can be seen must lie in (0, 1], with a standard error below 1; got {value:g},"
            f" {se:g}.",
            parameter="visible",
        )
    far = math.exp(z * se / value)
    return Interval(value, value / far, value * far)


def difference(before: Interval, now: Interval) -> Interval:
    """How much more there are now, by two surveys that don't depend on each other."""
    up = math.hypot(now.high - now.value, before.value - before.low)
    down = math.hypot(now.value - now.low, before.high - before.value)
    value = now.value - before.value
    return Interval(value, value - down, value + up)

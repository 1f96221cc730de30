"""How often an estimate's interval holds the truth, and how many plots the detections save.

    python -m benchmarks.accuracy.estimation simulated POPULATIONS.py --against coverage.csv --draws 400
    python -m benchmarks.accuracy.estimation real SCAN.gpkg IMAGES TRUTH --size 38m --draws 400

Simulated: POPULATIONS.py has `POP`, `DET` and `make(seed, population, detector)`, which gives numbers of
individuals (y), detections (x), found individuals (hit) and false detections (fp) of the cells of a square.
A new population is made every ten draws. Coverage is compared with that in a CSV: `!` where it is lower by
more than two standard errors. Real: TRUTH has all individuals on the ground of the scan, and a checker who
makes no mistake is simulated. Plots saved: how many fewer plots than random ones that are counted give the
same standard error.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import click
import numpy as np
from numpy.typing import NDArray

from ecodetect.estimation.abundance import Plots, abundance
from ecodetect.estimation.design import Design
from ecodetect.estimation.drawing import drawn
from ecodetect.estimation.frame import Frame, frame_of, side_of
from ecodetect.estimation.scan_layer import read_scan
from ecodetect.formats import files as formats
from ecodetect.formats.image_matching import base_name
from ecodetect.grid import Floats

Ints = NDArray[np.int64]
DRAWS_A_POPULATION = 10


@dataclass(frozen=True, eq=False)
class Cells:
    """Ground whose truth is known: numbers of each cell, (N,)."""

    individuals: Floats
    detections: Floats
    missed: Floats
    false: Floats
    column: Ints
    row: Ints
    site: Ints | tuple[()] = ()
    drawn_by: Floats | None = None  # what decides the strata, where it isn't `detections`


@dataclass(frozen=True)
class Outcome:
    """Of many draws on one kind of ground.

    coverage : share of the intervals that hold the truth.
    half_width, error : mean half-width, and root of the mean squared error, as shares of the truth.
    saved : share of plots, against counting random ones.
    """

    draws: int
    coverage: float
    half_width: float
    error: float
    saved: float

    @property
    def standard_error(self) -> float:
        return float(np.sqrt(max(self.coverage * (1 - self.coverage), 0.01) / self.draws))


def surveyed(ground: Callable[[int], Cells], n: int, draws: int) -> Outcome:
    """Draw plots, check them without an error, and estimate, many times.  ground : of the draw's number."""
    inside, widths, errors, variances = [], [], [], []
    whole = len(ground(0).individuals)
    for number in range(draws):
        cells = ground(number)
        truth = float(cells.individuals.sum())
        by = cells.detections if cells.drawn_by is None else cells.drawn_by
        draw = drawn(by, cells.column, cells.row, n, seed=number, sites=cells.site)
        plots, strata = draw.plots, len(draw.names)
        design = Design.of(np.bincount(draw.stratum, minlength=strata), draw.stratum[plots])
        detected = np.bincount(draw.stratum, cells.detections, minlength=strata).astype(np.float64)
        y, x, missed, false = (
            each[plots] for each in (cells.individuals, cells.detections, cells.missed, cells.false)
        )
        found = abundance(design, Plots(detected, y, x, missed, false)).interval
        inside.append(found.low <= truth <= found.high)
        size = max(truth, 1.0)
        widths.append(found.half_width / size)
        errors.append(((found.value - truth) / size) ** 2)
        variances.append(float(cells.individuals.var(ddof=1)) * (whole / size) ** 2)
    # As many random plots n' as give this mean squared error: S² (1/n' - 1/N).
    needed = 1 / (float(np.mean(errors)) / float(np.mean(variances)) + 1 / whole)
    return Outcome(
        draws, float(np.mean(inside)), float(np.mean(widths)), float(np.sqrt(np.mean(errors))), 1 - n / needed
    )


@click.group()
def main() -> None:
    """Coverage and effort of estimates."""


@main.command()
@click.argument("populations", type=click.Path(exists=True, path_type=Path))
@click.option("--against", type=click.Path(exists=True, path_type=Path))
@click.option("--draws", type=int, default=400, show_default=True)
@click.option("-n", "numbers", type=int, multiple=True, default=(10, 20, 40), show_default=True)
@click.option("--population", "kinds", multiple=True, help="All if not given.")
@click.option("--detector", "detectors", multiple=True, help="All if not given.")
def simulated(
    populations: Path,
    against: Path | None,
    draws: int,
    numbers: Sequence[int],
    kinds: Sequence[str],
    detectors: Sequence[str],
) -> None:
    """Populations and detectors that a file makes."""
    made = _module(populations)
    known = {} if against is None else _known(against)
    low = total = 0
    print("population       detector    n  coverage  before   half-width   saved  before")
    for kind in kinds or list(made.POP):
        for detector in detectors or list(made.DET):
            for n in numbers:
                found = surveyed(_ground(made, kind, detector), n, draws)
                before = known.get((str(n), kind, detector))
                mark = " "
                if before is not None:
                    total += 1
                    is_low = found.coverage < before[0] - 2 * np.hypot(found.standard_error, before[2])
                    low, mark = low + is_low, "!" if is_low else " "
                was = (f"{before[0]:.1%}", f"{before[1]:.0%}") if before else ("", "")
                print(
                    f"{kind:16} {detector:8} {n:4}    {found.coverage:6.1%} {was[0]:>7}{mark}"
                    f"  {found.half_width:8.0%}   {found.saved:6.0%}  {was[1]:>6}",
                    flush=True,
                )
    if total:
        print(f"{low} of {total} lower than before by more than two standard errors")


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("populations", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def _ground(made: ModuleType, kind: str, detector: str) -> Callable[[int], Cells]:
    """The population of each draw; one is kept for some draws."""
    kept: dict[int, Cells] = {}

    def ground(draw: int) -> Cells:
        seed = draw // DRAWS_A_POPULATION
        if seed not in kept:
            kept.clear()
            cells = made.make(seed, kind, detector)
            there = np.arange(len(cells["y"]))
            side = round(len(there) ** 0.5)
            missed = cells["y"] - cells["hit"]
            kept[seed] = Cells(cells["y"], cells["x"], missed, cells["fp"], there % side, there // side)
        return kept[seed]

    return ground


def _known(path: Path) -> dict[tuple[str, str, str], tuple[float, float, float]]:
    """Coverage, plots saved and standard error of coverage that a CSV has (some 2,500 draws a line)."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            (row["n"], row["pop"], row["det"]): (
                float(row["cover"]),
                float(row["saved"]),
                float(np.sqrt(max(float(row["cover"]) * (1 - float(row["cover"])), 0.01) / 2500)),
            )
            for row in csv.DictReader(file)
        }


@main.command()
@click.argument("scan", type=click.Path(exists=True, path_type=Path))
@click.argument("images", type=click.Path(exists=True, path_type=Path))
@click.argument("truth", type=click.Path(exists=True, path_type=Path))
@click.option("--size", required=True, help="Side of a cell (38m), or image.")
@click.option("--draws", type=int, default=400, show_default=True)
@click.option("-n", "numbers", type=int, multiple=True, default=(10, 20, 40), show_default=True)
def real(scan: Path, images: Path, truth: Path, size: str, draws: int, numbers: Sequence[int]) -> None:
    """Ground that was scanned, and of which every individual is annotated."""
    found = read_scan(scan, images=[images])
    frame = frame_of(found, side_of(found, size, max(numbers)))
    layer = formats.read(truth, grid=found.plane.grid)
    labels = np.array([str(each) for each in layer.columns.get("label", [found.classes[0]] * len(layer))])
    if frame.side is None:
        names = {each.name: site for site, each in enumerate(frame.rasters)}
        sources = [base_name(str(each)) for each in layer.columns["source"].tolist()]
        cell = np.array([names.get(name, -1) for name in sources], np.int64)
    else:
        cell = _cells(frame, found.plane.places(layer, about=str(truth)))
    every = frame.counts(np.ones(len(found), np.bool_))
    classes = found.classes if len(found.classes) == 1 else (*found.classes, "all")
    for name in classes:
        own = labels == name if name in labels else np.isin(labels, found.classes) | (name == "all")
        if len(found.classes) == 1:
            own = np.ones(len(layer), np.bool_)
        y = np.bincount(cell[own & (cell >= 0)], minlength=len(frame)).astype(np.float64)
        x = every if name == "all" or len(found.classes) == 1 else frame.counts(found.labels == name)
        cells = Cells(
            y, x, np.maximum(y - x, 0), np.maximum(x - y, 0), frame.column, frame.row, frame.sites, every
        )
        print(f"{name}: {len(frame)} cells, {y.sum():.0f} individuals, {x.sum():.0f} detections")
        for n in numbers:
            if 3 * n > len(frame):
                continue
            done = surveyed(partial(_always, cells), n, draws)
            print(
                f"  n = {n:3}: coverage {done.coverage:.1%} (± {done.standard_error:.1%}), half-width"
                f" {done.half_width:.0%}, plots saved {done.saved:.0%}",
                flush=True,
            )


def _always(cells: Cells, _: int) -> Cells:
    return cells


def _cells(frame: Frame, xy: Floats) -> Ints:
    """The cell of each place, (M,); -1: in none."""
    assert frame.side is not None
    number = {
        place: cell for cell, place in enumerate(zip(frame.column.tolist(), frame.row.tolist(), strict=True))
    }
    places = np.floor(xy / frame.side).astype(np.int64).tolist()
    return np.array([number.get((x, y), -1) for x, y in places], np.int64)


if __name__ == "__main__":
    main()

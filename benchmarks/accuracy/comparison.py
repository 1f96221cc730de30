"""Detectors of several kinds on the same ground.

    python -m benchmarks.accuracy.comparison RASTER TRUTH --within 4m NAME=MODEL …

The lectures' comparison on other pictures: each model scans RASTER whole, what it finds is matched with TRUTH
by the distance of centres, one to one, and the time is that of further scans in the same process, so without
start-up. Models are bundles trained elsewhere, with commands that docs/benchmarks.md gives.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click

import ecodetect
from benchmarks.measuring import machine, table
from ecodetect.evaluation.criterion import Criterion
from ecodetect.sizes import Length


@click.command()
@click.argument("raster", type=click.Path(exists=True, path_type=Path))
@click.argument("truth", type=click.Path(exists=True, path_type=Path))
@click.argument("models", nargs=-1, required=True, metavar="NAME=MODEL …")
@click.option("--within", required=True, help="How far centres may lie apart, such as 4m.")
@click.option("--rounds", type=int, default=3, show_default=True, help="The fastest scan counts.")
def main(raster: Path, truth: Path, models: tuple[str, ...], within: str, rounds: int) -> None:
    """Compare."""
    criterion = Criterion("distance", Length.parse(within, name="--within"))
    with ecodetect.open_raster(raster) as opened:
        mpx = opened.grid.width * opened.grid.height / 1e6
    rows = []
    for pair in models:
        name, _, model = pair.partition("=")
        seconds = []
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "found.geojson"
            _, failures = ecodetect.scan_files([raster], ecodetect.Settings(model=model), str(out))
            assert not failures, failures
            for _ in range(rounds):
                began = time.perf_counter()
                ecodetect.scan(raster, model=model)
                seconds.append(time.perf_counter() - began)
            judged = ecodetect.evaluate(out, truth, criterion=criterion)
        rates, taken = judged.rates, min(seconds)
        off = rates.n_detections - rates.n_truths
        rows.append([
            name, *(f"{value:.3f}" for value in (rates.precision, rates.recall, rates.f1)),
            f"{off:+d} ({off / rates.n_truths:+.1%})", f"{taken:.2f}", f"{taken / mpx:.2f}",
        ])  # fmt: skip
    click.echo(f"{raster.name}, {mpx:.1f} Mpx; centres within {within}; {machine()}\n")
    header = ["detector", "precision", "recall", "F1", "count off by", "s", "s per Mpx"]
    click.echo(table(header, rows))


if __name__ == "__main__":
    main()

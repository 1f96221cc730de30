"""Counts of `nuclei` on the rendered cells of sample_data/make.py, newly drawn.

    python -m benchmarks.accuracy.cells

Twenty seeds that nobody has trained on; counted at the bundle's own threshold.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
from PIL import Image

import ecodetect
from sample_data import make

SEEDS = range(100, 120)


@click.command()
@click.option("-m", "--model", default="nuclei", show_default=True)
def main(model: str) -> None:
    """Count and compare."""
    found, true = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            image, cells = make.render_cells(seed)
            path = Path(folder) / f"cells{seed}.png"
            Image.fromarray(image).save(path)
            found.append(len(ecodetect.scan(path, model=model)))
            true.append(len(cells))
            click.echo(f"seed {seed}: {found[-1]} found, {true[-1]} drawn")
    off = np.array(found) / np.array(true) - 1
    click.echo(
        f"{sum(found):,} found, {sum(true):,} drawn: {sum(found) / sum(true) - 1:+.1%}; by picture from"
        f" {off.min():+.1%} to {off.max():+.1%}, {np.abs(off).mean():.1%} in the mean"
    )


if __name__ == "__main__":
    main()

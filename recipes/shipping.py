"""What the scripts of the shipped models share: training with progress, and the last lines of a card."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from ecodetect_cli.train import ProgressLine

from ecodetect.bundle import file as bundle
from ecodetect.bundle.file import Bundle
from ecodetect.training.recipe import Trained, train


def trained(paths: Sequence[str], out: Path, **wishes: Any) -> Trained:
    """`train` on both cores of a laptop, with a line of progress; an interrupted training resumes."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(2)
    folder = out.with_name(f"{out.name}.training")
    with ProgressLine(hidden=False) as line:
        done = train(
            paths,
            out,
            overwrite=True,
            resume=folder.exists(),
            command=" ".join(["python -m", f"recipes.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
            say=lambda note: click.echo(note, err=True),
            progress=line.show,
            **wishes,
        )
    click.echo(done.verdict)
    return done


def finish(
    done: Trained,
    *,
    name: str,
    classes: Sequence[str],
    description: str,
    data: str,
    licence: str,
    command: str,
    gsd_range: tuple[float, float] | None = None,
) -> Bundle:
    """Write the bundle as it is shipped: weights in 16 bits, and in the card what only its makers know."""
    made = done.bundle
    counts = dict(zip(classes, made.card.trained_on[0]["per_class"].values(), strict=True))
    card = replace(
        made.card,
        name=name,
        classes=tuple(classes),
        description=description,
        licence=licence,
        command=command,
        gsd_range=gsd_range or made.card.gsd_range,
        trained_on=({**made.card.trained_on[0], "name": data, "per_class": counts},),
    )
    shipped = replace(made, card=card, weights=bundle.half(made.weights))
    bundle.write(done.path, shipped)
    click.echo(f"{done.path}: {done.path.stat().st_size / 1e6:.2f} MB")
    return shipped

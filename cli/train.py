"""`ecodetect train`: train a detector from annotations on rasters."""

from __future__ import annotations

import math
import shlex
import sys
import time
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

import click

from ecodetect.wording import counted, duration, figure

from . import options
from .terminal import renew, say

if TYPE_CHECKING:
    from ecodetect.training.loop import Progress


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="(IMAGE ANNOTATIONS)... | FOLDER")
@options.beginning
@click.option(
    "-o", "--out", required=True, metavar="OUT", help="Write the model to this file (OUT.safetensors)."
)
@options.annotation
@options.raster
@options.values
@click.option(
    "--freeze",
    default="0",
    metavar="N|all",
    help="Freeze the encoder's first N stages, or all of it.  [default: 0]",
)
@click.option("--epochs", type=int, metavar="N", help="Train this many epochs.  [default: from the data]")
@click.option(
    "--within",
    metavar="LENGTH",
    help="Accept positions within this distance in validation (3m, 10px).  [default: the radius]",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Train on this device; auto takes a GPU if there is one.",
)
@click.option(
    "--workers", type=int, metavar="N", help="Prepare chips in this many threads.  [default: automatic]"
)
@click.option("--resume", is_flag=True, help="Resume an interrupted training.")
@options.overwrite
@click.option("-q", "--quiet", is_flag=True, help="Print no progress.")
@options.timeout
@options.strict
def train(
    paths: tuple[str, ...],
    out: str,
    freeze: str,
    epochs: int | None,
    within: str | None,
    device: str,
    workers: int | None,
    resume: bool,
    overwrite: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Train a detector from annotations on rasters.

    Give rasters and annotations in turn, a folder of both, or a folder of images in folders by class. Points
    are enough. Part of the ground is kept for validation. To resume an interrupted training, add --resume.

    \b
    Examples:
      ecodetect train ortho.tif shrubs.gpkg -o shrubs.safetensors
      ecodetect train plots/ -m trees -o my-trees.safetensors --complete plots.gpkg
    """
    frozen = _stages(freeze)
    _check(freeze=0 if frozen == "all" else frozen, epochs=epochs, workers=workers)
    from ecodetect.extras import check_installed
    from ecodetect.sizes import Length

    check_installed("Training", "torch")
    from ecodetect.training.processes import leads
    from ecodetect.training.recipe import train as run

    asked = options.asked(given)
    settings = options.pairs(given.pop("settings"))
    quiet = quiet or not leads()
    with ProgressLine(hidden=quiet) as line:
        done = run(
            paths,
            out,
            asked=asked,
            freeze=frozen,
            epochs=epochs,
            within=None if within is None else Length.parse(within, name="--within"),
            settings=settings,
            **given,
            device=device,
            workers=workers,
            resume=resume,
            overwrite=overwrite,
            command=_command(),
            say=lambda note: options.tell([note], shown=not quiet),
            progress=line.show,
        )
    if not leads():
        return
    say(done.verdict)
    counts = done.fitted
    if counts is not None:
        say(
            f"{counted(len(counts.history), 'epoch')}{', stopped early' if counts.stopped else ''};"
            f" waited for data {counts.waited:.0%} of the time; curves in {done.curves}"
        )
    say(f"written to {done.path}")


def _stages(text: str) -> int | Literal["all"]:
    """What --freeze says."""
    if text == "all":
        return "all"
    try:
        return int(text)
    except ValueError:
        raise click.UsageError(f"--freeze takes a number of stages, or all; got '{text}'.") from None


def _check(*, freeze: int, epochs: int | None, workers: int | None) -> None:
    for name, value, least in (("--freeze", freeze, 0), ("--epochs", epochs, 1), ("--workers", workers, 1)):
        if value is not None and value < least:
            raise click.UsageError(f"{name} must be at least {least}; got {value}.")


def _command() -> str:
    """The command line for the card: without folders, and without the name of the output."""
    context = click.get_current_context()
    words = ["ecodetect", "train", *(PurePath(path).name for path in context.params["paths"])]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if parameter.name in ("paths", "out", "resume", "overwrite", "quiet", "workers"):
            continue
        if (
            isinstance(parameter, click.Option)
            and value not in (None, False, ())
            and value != parameter.default
        ):
            for each in value if isinstance(value, tuple) else (value,):
                text = str(each)
                is_path = "/" in text and parameter.name != "backbone"
                words += [max(parameter.opts, key=len), PurePath(text).name if is_path else text]
    return shlex.join(words)


class ProgressLine:
    """Progress on stderr: a line that renews itself on a terminal, a line after each epoch elsewhere."""

    def __init__(self, *, hidden: bool) -> None:
        self._hidden, self._live = hidden, sys.stderr.isatty()
        self._said = 0.0
        self._wide = 0

    def show(self, progress: Progress) -> None:
        now = time.monotonic()
        if self._hidden or (
            now - self._said < (0.2 if self._live else 30) and progress.step < progress.steps
        ):
            return
        self._said = now
        left = f", {duration(progress.seconds_left)} left" if progress.step < progress.steps else ""
        score = "" if math.isnan(progress.f1) else f", F1 {progress.f1:.3f} (best {progress.best:.3f})"
        text = (
            f"step {progress.step:,} of {progress.steps:,}: loss {progress.loss:.4g}{score},"
            f" {figure(progress.per_second)} chips/s{left}, waited for data {progress.waited:.0%} of the time"
        )
        if self._live:
            self._wide = renew(text, self._wide)
        else:
            say(text, to_stderr=True)

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._live and self._wide:
            renew("", self._wide)

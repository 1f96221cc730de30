"""What a GPU makes of a model.

    python -m benchmarks.speed.gpu FOLDER [-m trees] [--size 8192]

The bare network on tiles of one size in several ways (one tile or eight at once, 32 or 16 bits, channels
first or last, compiled), over a second and a half of each; then `scan` of a raster made in FOLDER, end to end
and its start-up subtracted, one tile at once and eight, and on the CPU. Beside each the share of the time in
which the GPU was busy, as its driver tells it (needs `pip install nvidia-ml-py`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import torch

import ecodetect
from benchmarks.measuring import table
from benchmarks.speed.network import SAMPLE, as_trained, make
from ecodetect.models import choosing as models
from ecodetect.runtime import torch_network

SECONDS = 1.5  # of work in a round


class Busy:
    """Samples of how busy the GPU is while something runs."""

    def __init__(self) -> None:
        self.shares: list[int] = []
        self._over = threading.Event()

    def __enter__(self) -> Busy:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.shares.append(torch.cuda.utilization())

    @property
    def share(self) -> float:
        """Mean over the time."""
        return sum(self.shares) / max(1, len(self.shares)) / 100


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-m", "--model", default="trees", show_default=True)
@click.option("--image", type=click.Path(exists=True, path_type=Path), default=SAMPLE)
@click.option("--size", type=int, default=8192, show_default=True, help="Side of the raster, px.")
@click.option("--side", type=int, default=1024, show_default=True, help="Side of a tile, px.")
@click.option("--compiled/--no-compiled", default=True, help="Compiling takes half a minute.")
def main(folder: Path, model: str, image: Path, size: int, side: int, compiled: bool) -> None:
    """Measure."""
    click.echo(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {model}\n")
    click.echo(table(["tile", "Mpx/s", "busy"], list(_bare(model, side, compiled))))
    click.echo("")
    click.echo(table(["scan", "Mpx/s", "busy"], list(_scans(folder, model, image, size))))


def _bare(model: str, side: int, is_compiled: bool) -> Iterator[list[str]]:
    """The network alone, in all ways."""
    bundle = models.opened(model)
    if bundle is None:
        raise click.UsageError(f"{model} is a kind of detector; name a trained model.")
    folded: Any = torch_network.folded(as_trained(bundle))
    for batch in (1, 8):
        for bits, last, compiled in (
            (32, False, False),
            (32, True, False),
            (16, True, False),
            (16, True, True),
        ):
            if compiled and (batch == 1 or not is_compiled):
                continue
            form = torch.channels_last if last else torch.contiguous_format
            module: Any = folded.to("cuda", memory_format=form)
            if compiled:
                module = torch.compile(module)
            tiles = torch.rand(batch, len(bundle.card.bands), side, side).to("cuda", memory_format=form)
            mixed = torch.autocast("cuda", torch.float16) if bits == 16 else contextlib.nullcontext()
            with torch.inference_mode(), mixed:
                rate, busy = _rate(lambda: module(tiles), batch * side**2 / 1e6)  # noqa: B023
            ways = [f"{batch} of {side} px", f"{bits} bits", f"channels {'last' if last else 'first'}"]
            yield [", ".join(ways + ["compiled"] * compiled), f"{rate:.0f}", f"{busy:.0%}"]


def _rate(work: Callable[[], Any], mpx: float) -> tuple[float, float]:
    """Mpx/s and how busy the GPU was."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    count, began = 0, time.perf_counter()
    with Busy() as busy:
        while time.perf_counter() - began < SECONDS:
            work()
            torch.cuda.synchronize()
            count += 1
        seconds = time.perf_counter() - began
    return count * mpx / seconds, busy.share


def _scans(folder: Path, model: str, image: Path, size: int) -> Iterator[list[str]]:
    """A raster end to end, on the GPU and on the CPU."""
    gsd = models.card(model).gsd_m or 0.1
    whole, small = (make(folder, image, side, gsd) for side in (size, 512))
    for device, batch in (("cuda", 1), ("cuda", 8), ("cpu", 1)):
        taken = {}
        for path in (small, small, whole):  # the first opens everything
            began = time.perf_counter()
            with Busy() as busy:
                found = ecodetect.scan(path, model=model, device=device, batch=batch)
            taken[path] = time.perf_counter() - began
        seconds = taken[whole] - taken[small]
        name = f"{device}, {batch} at once, {len(found):,} found"
        yield [name, f"{(size**2 - 512**2) / 1e6 / seconds:.1f}", f"{busy.share:.0%}"]


if __name__ == "__main__":
    main()

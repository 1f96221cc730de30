"""What ONNX Runtime costs beside torch.

    python -m benchmarks.speed.onnx_runtime FOLDER [--threads 1] [--size 2048]

Two networks, the shipped `trees` and a yolo nano with random weights, are exported to FOLDER. The same tiles
go through both runtimes as `scan` has them (torch: normalisation folded in, channels last), in turns. Then
`scan` runs as a process of its own on a raster of mirrored copies of sample_data/dryland.tif: all its time,
and the most memory that it held.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.speed.network import SAMPLE, make
from ecodetect import exporting
from ecodetect.bundle import file as bundle
from ecodetect.bundle.card import Card, Scaling
from ecodetect.bundle.file import Bundle
from ecodetect.detectors import yolo
from ecodetect.detectors.protocol import Scene
from ecodetect.models import choosing as models

_CODE = """
import json, resource, sys, time
began = time.monotonic()
import ecodetect
found = ecodetect.scan(sys.argv[1], model=sys.argv[2], workers=int(sys.argv[3]))
print(json.dumps({"seconds": time.monotonic() - began, "found": len(found), "torch": "torch" in sys.modules,
    "cpu": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
    # For this program only: ru_maxrss begins with what the one that started it held.
    "megabytes": int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) / 1000}))
"""


def nano() -> Bundle:
    """A yolo nano for the bands and pixels of the sample, that has learned nothing."""
    shape = {"kind": "nano", "strides": [8, 16, 32], "size": "nano"}
    card = Card(
        name="yolo-nano", detector="yolo", bands=("red", "green", "blue", "nir"), unit="px", largest=80.0,
        classes=("object",), options={"network": shape, "typical_px": 40.0}, thresholds={"f1": (0.5,)},
        scaling=Scaling(offset=(0.0,) * 4, span=(255.0,) * 4), reach_px="whole image",
    )  # fmt: skip
    torch.manual_seed(0)
    made = yolo.network(card)
    for part in made.modules():
        if isinstance(part, torch.nn.Conv2d):  # or what goes in doesn't reach the end
            torch.nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    return Bundle(card, {name: values.numpy() for name, values in made.state_dict().items()})


def rates(paths: dict[str, Path], side: int, threads: int, rounds: int) -> dict[str, tuple[float, ...]]:
    """Mpx per second and per second of CPU of each runtime on tiles, the best of rounds that alternate."""
    bands = models.card(paths["torch"]).bands
    scene = Scene(bands, (0.4, 0.4), "uint8", (0, 255))
    opened: dict[str, Any] = {
        name: models.build(path, scene, device="cpu", threads=threads) for name, path in paths.items()
    }
    batch = np.random.default_rng(0).random((1, len(bands), side, side), dtype=np.float32)
    best: dict[str, tuple[float, float]] = {}
    for number in range(rounds + 1):
        for name, detector in opened.items():
            began = time.monotonic(), time.process_time()
            detector.network.run(batch)
            took = time.monotonic() - began[0], time.process_time() - began[1]
            if number:  # the first allocates
                before = best.get(name, took)
                best[name] = min(took[0], before[0]), min(took[1], before[1])
    return {name: tuple(side**2 / 1e6 / seconds for seconds in each) for name, each in best.items()}


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--network", type=click.Choice(["trees", "yolo-nano"]), help="Only this one.")
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--size", type=int, default=2048, show_default=True)
@click.option("--rounds", type=int, default=3, show_default=True)
def main(folder: Path, network: str | None, threads: int, size: int, rounds: int) -> None:
    """Compare."""
    trees = models.opened("trees")
    assert trees is not None
    made = {"trees": trees, "yolo-nano": nano()}
    for name, each in made.items():
        if network not in (None, name):
            continue
        paths = {"torch": folder / f"{name}.safetensors", "onnx": folder / f"{name}.onnx"}
        bundle.write(paths["torch"], each)
        done = exporting.export(paths["torch"], paths["onnx"], overwrite=True)
        click.echo(f"{name}: answers differ by {done.relative:.1e} of the largest value")
        for side in (512, 1024):
            found = rates(paths, side, threads, rounds)
            click.echo(
                f"{name}, tiles of {side} px, {threads} thread(s): "
                + "; ".join(
                    f"Mpx per second{kind}: torch {one:.2f}, ONNX Runtime {two:.2f}: {two / one:.2f} times"
                    for kind, one, two in zip(("", " of CPU"), found["torch"], found["onnx"], strict=True)
                )
            )
        raster = make(folder, SAMPLE, size, each.card.gsd_m or 0.4)
        for kind, path in paths.items():
            said = subprocess.run(
                [sys.executable, "-c", _CODE, str(raster), str(path), str(threads)],
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            facts = json.loads(said.stdout)
            click.echo(
                f"{name}, scan of {size} x {size} px, {kind}: {facts['seconds']:.1f} s, {facts['cpu']:.1f} s"
                f" of CPU, at most {facts['megabytes']:.0f} MB, {facts['found']:,} found"
            )


if __name__ == "__main__":
    main()

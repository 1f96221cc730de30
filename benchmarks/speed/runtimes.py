"""What a scan costs in ONNX Runtime and in torch, and how much of it is the network.

    python -m benchmarks.speed.runtimes trees=TILE.tif nuclei=PICTURE.png [--size 2560] [--rounds 3]

Each model scans a picture of its kind, as it is or continued as in a mirror to SIZE pixels a side. The model
with its graph (ONNX Runtime) and without (torch) take turns, each a process of its own: all its seconds, its
seconds of CPU, and the most memory that it held. What both find is compared. Then the same batches go through
the bare sessions, which is what a scan would take if it were nothing but the network. To compare with that
only, --rounds 0.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import rasterio

from benchmarks.measuring import Cost, best, cost_of, machine, scan_command, table
from ecodetect.bundle import file as bundle
from ecodetect.bundle.file import Bundle
from ecodetect.models import choosing as models

_BARE = """
import sys, time, json
import numpy as np
import onnxruntime
import ecodetect
raster, model, small = sys.argv[1:]
seen, run = [], onnxruntime.InferenceSession.run
def noted(session, outputs, given, *rest):
    # Few numbers are kept (where boxes lie), of many their shape.
    seen.append((session, outputs, {k: v if v.size < 200_000 else v.shape for k, v in given.items()}))
    return run(session, outputs, given, *rest)
ecodetect.scan(small, model=model)  # what is imported and opened
onnxruntime.InferenceSession.run = noted
began = time.monotonic()
ecodetect.scan(raster, model=model)
scan_s = time.monotonic() - began
random, made = np.random.default_rng(0), {}
def array(value):
    if isinstance(value, np.ndarray):
        return value
    if value not in made:
        made[value] = random.random(value, np.float32)
    return made[value]
began = time.monotonic()
for session, outputs, given in seen:
    run(session, outputs, {k: array(v) for k, v in given.items()})
print(json.dumps({"bare": time.monotonic() - began, "scan": scan_s, "batches": len(seen)}))
"""


def continued(picture: Path, size: int, folder: Path) -> Path:
    """A picture continued as in a mirror to `size` pixels a side; its place stays."""
    with rasterio.open(picture) as source:
        pixels, profile, names = source.read(), source.profile, source.descriptions
    lack = [(0, 0), *((0, max(0, size - side)) for side in pixels.shape[1:])]
    whole = np.pad(pixels, lack, mode="symmetric")[:, :size, :size]
    path = folder / f"{picture.stem}_{size}.tif"
    kept = {
        key: profile[key] for key in ("crs", "transform", "dtype", "count") if profile.get(key) is not None
    }
    with rasterio.open(
        path, "w", driver="GTiff", width=size, height=size, tiled=True, compress="deflate", **kept
    ) as out:
        out.write(whole)
        out.descriptions = names
    return path


def without_graph(name: str, folder: Path) -> Path:
    """The model as it was before it had a graph: torch runs it."""
    made = models.opened(name)
    assert made is not None
    path = folder / f"{name}.safetensors"
    bundle.write(path, Bundle(replace(made.card, graphs={}), made.weights))
    return path


def compared(one: Path, two: Path) -> str:
    """How many features both have, and the largest difference of score and of coordinates of those."""
    found = [json.loads(path.read_text(encoding="utf-8"))["features"] for path in (one, two)]
    if len(found[0]) != len(found[1]):
        return f"{len(found[0])} and {len(found[1])}"
    off = [abs(a["properties"]["score"] - b["properties"]["score"]) for a, b in zip(*found, strict=True)]
    return f"{len(off)}, scores within {max(off, default=0):.0e}"


def _beside(costs: dict[str, list[Cost]], share: str, outs: dict[str, Path]) -> list[str]:
    """What both took, and what they found."""
    onnx, torch = (best(each) for each in costs.values())
    taken = [f"{each.wall_s:.1f} / {each.cpu_s:.1f} / {each.peak_mb:.0f}" for each in (onnx, torch)]
    ratio = f"{torch.wall_s / onnx.wall_s:.2f} / {torch.cpu_s / onnx.cpu_s:.2f}"
    return [*taken, ratio, share, compared(*outs.values())]


@click.command()
@click.argument("pairs", nargs=-1, required=True, metavar="MODEL=PICTURE...")
@click.option("--size", type=int, default=2560, show_default=True, help="Pixels a side; 0: as it is.")
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--bare/--no-bare", default=True, show_default=True, help="Compare with the bare session.")
def main(pairs: tuple[str, ...], size: int, rounds: int, bare: bool) -> None:
    """Compare both runtimes on whole scans."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for pair in pairs:
            model, _, picture = pair.partition("=")
            raster = continued(Path(picture), size, folder) if size else Path(picture)
            named = {"ONNX Runtime": model, "torch": str(without_graph(model, folder))}
            costs: dict[str, list[Cost]] = {each: [] for each in named}
            outs = {each: folder / f"{each.split()[0]}.geojson" for each in named}
            for _ in range(rounds):
                for each, file in named.items():
                    flags = ("-m", file, "--device", "cpu", "--restart")
                    costs[each].append(cost_of(scan_command(raster, outs[each], *flags)))
            share = ""
            if bare:
                done = subprocess.run(
                    [sys.executable, "-c", _BARE, str(raster), model, picture],
                    capture_output=True, text=True, check=True, env=os.environ,
                )  # fmt: skip
                facts = json.loads(done.stdout.splitlines()[-1])
                share = f"{facts['bare'] / facts['scan']:.3f} ({facts['bare']:.0f} s)"
            both = ["", "", "", share, ""] if not rounds else _beside(costs, share, outs)
            rows.append([model, size or "as it is", *both])
            click.echo(" | ".join(map(str, rows[-1])))
    header = ["model", "px", "ONNX Runtime: s / CPU s / MB", "torch", "times s / CPU", "bare / scan", "found"]
    click.echo(f"\n{machine()}\n\n{table(header, rows)}")


if __name__ == "__main__":
    main()

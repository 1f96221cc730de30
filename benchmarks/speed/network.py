"""What `scan` costs beside its network.

    python -m benchmarks.speed.network FOLDER [-m trees] [--size 4096]

A raster is made in FOLDER of mirrored copies of sample_data/dryland.tif (or of --image), at the model's GSD;
a model that works in pixels sees them as it always does, reduced. It is scanned, the tiles that the network
is given are noted, and the same tiles are given to the bare network: the weights as they are trained, and as
`scan` runs them (normalisation folded in, channels last). The first two alternate; start-up (imports, opening
the model) is outside of all three.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import rasterio
import torch
from rasterio.transform import Affine

import ecodetect
from ecodetect.bundle.file import Bundle
from ecodetect.detectors import table as detectors
from ecodetect.detectors.protocol import Scene
from ecodetect.models import choosing as models
from ecodetect.runtime import torch_network

SAMPLE = Path(__file__).parents[2] / "sample_data" / "dryland.tif"


def make(folder: Path, image: Path, size: int, gsd: float) -> Path:
    """The raster, tiled and compressed as usual."""
    with rasterio.open(image) as there:
        pixels, crs, nodata = there.read(), there.crs, there.nodata
    lack = [(0, 0), *((0, max(0, size - side)) for side in pixels.shape[1:])]
    pixels = np.pad(pixels, lack, mode="symmetric")[:, :size, :size]
    path = folder / f"network-speed-{size}.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=size, height=size, count=len(pixels), dtype=pixels.dtype, crs=crs,
        transform=Affine(gsd, 0, 400_000, 0, -gsd, 4_100_000), nodata=nodata, tiled=True, blockxsize=256,
        blockysize=256, compress="deflate",
    ) as raster:  # fmt: skip
        raster.write(pixels)
    return path


def as_trained(bundle: Bundle) -> torch.nn.Module:
    """A bundle's network with nothing done to it."""
    card = bundle.card
    plain: torch.nn.Module = detectors.network_kind(card.detector).network(card, None)
    torch_network.load(plain, bundle.weights, name=card.name)
    return plain.eval()


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-m", "--model", default="trees", show_default=True)
@click.option("--image", type=click.Path(exists=True, path_type=Path), default=SAMPLE)
@click.option("--size", type=int, default=4096, show_default=True)
@click.option("--rounds", type=int, default=3, show_default=True)
def main(folder: Path, model: str, image: Path, size: int, rounds: int) -> None:
    """Compare."""
    bundle = models.opened(model)
    if bundle is None:
        raise click.UsageError(f"{model} is a kind of detector; name a trained model.")
    card = bundle.card
    path = make(folder, image, size, card.gsd_m or 0.1)
    plain = as_trained(bundle)
    scene = Scene(card.bands, None, "uint8", (0.0, 255.0))
    detector: Any = detectors.build(card.detector, scene, bundle=bundle)
    opened = detector.network  # the very one of `scan`: it is kept
    shapes: list[torch.Size] = []
    watch = opened.module.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    ecodetect.scan(path, model=model)  # what is imported and allocated once, and the tiles
    watch.remove()
    seen = sum(shape[0] * shape[2] * shape[3] for shape in shapes) / 1e6
    click.echo(
        f"{size} x {size} px in {len(shapes)} tiles of {sorted(set(map(tuple, shapes)))}: {seen:.1f} Mpx seen"
    )
    times: dict[str, list[float]] = {"scan": [], "bare, as scan runs it": [], "bare, as trained": []}
    for _ in range(rounds):
        began = time.monotonic()
        found = ecodetect.scan(path, model=model)
        times["scan"].append(time.monotonic() - began)
        began = time.monotonic()
        for shape in shapes:
            opened.run(np.zeros(tuple(shape), np.float32))
        times["bare, as scan runs it"].append(time.monotonic() - began)
    # Last, for it leaves memory in another state than the other two find it in.
    began = time.monotonic()
    with torch.inference_mode():
        for shape in shapes:
            plain(torch.zeros(shape))
    times["bare, as trained"].append(time.monotonic() - began)
    best = {name: min(each) for name, each in times.items()}
    for name, seconds in best.items():
        click.echo(f"{name}: {seconds:.1f} s, {seen / seconds:.2f} Mpx/s")
    share = best["bare, as scan runs it"] / best["scan"]
    click.echo(f"scan reaches {share:.2f} of the bare network's rate, {len(found):,} detections")


if __name__ == "__main__":
    main()

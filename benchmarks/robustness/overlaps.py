"""Overlapping pieces of a scene, each a little off its place, against the whole scene: the same number?

    python -m benchmarks.robustness.overlaps FOLDER RASTER=MODEL[:NAME=VALUE]... [--shift 1.5] [--seeds 3]

cuts two to five pieces out of each raster (side by side, in quarters, with one in the middle), moves each by
up to `--shift` metres and scans them into one layer. A line each: individuals in the whole, in the pieces as
they lie and moved (mean of `--seeds`), in all pieces one by one, and the ground searched, against the whole.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

from ecodetect.scanning.files import scan_files
from ecodetect.scanning.results import Summary
from ecodetect.scanning.settings import Output, Settings

from ..measuring import table

# Left, top, width, height as shares of the scene: two to five pieces.
LAYOUTS: dict[str, list[tuple[float, float, float, float]]] = {
    "2 side by side": [(0, 0, 0.65, 1), (0.35, 0, 0.65, 1)],
    "3 strips": [(0, 0, 1, 0.45), (0, 0.28, 1, 0.45), (0, 0.55, 1, 0.45)],
    "4 quarters": [(x, y, 0.6, 0.6) for y in (0, 0.4) for x in (0, 0.4)],
    "4 quarters and the middle": [
        *((x, y, 0.6, 0.6) for y in (0, 0.4) for x in (0, 0.4)),
        (0.2, 0.2, 0.6, 0.6),
    ],
}


def main() -> None:
    """Print a table: a line for each raster and layout."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="+", metavar="RASTER=MODEL")
    parser.add_argument("--shift", type=float, default=1.5, help="metres")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for case in given.cases:
        name, _, model = case.rpartition("=") if ":" not in case else case.partition("=")
        scene = Path(name)
        whole = found_in([scene], given.folder / "whole.csv", model)
        for layout, parts in LAYOUTS.items():
            still = found_in(list(cut(scene, parts, given.folder)), given.folder / "pieces.csv", model)
            moved = []
            for seed in range(given.seeds):
                pieces = list(cut(scene, parts, given.folder, np.random.default_rng(seed), given.shift))
                moved.append(found_in(pieces, given.folder / "pieces.csv", model).total)
            alone = sum(found_in([piece], given.folder / "piece.csv", model).total for piece in pieces)
            area = (still.area_ha or 0) / (whole.area_ha or 1) - 1
            counts = [whole.total, still.total, float(np.mean(moved)), min(moved), max(moved), alone]
            off = (np.array(counts[1:3]) / whole.total - 1).tolist()
            rows.append(
                [scene.stem, model, layout, *(f"{count:,.5g}" for count in counts),
                 *(f"{each:+.2%}" for each in (*off, area))]
            )  # fmt: skip
            print(*rows[-1], flush=True)
    header = ["scene", "model", "pieces", "whole", "as they lie", "moved", "fewest", "most", "one by one"]
    print(table([*header, "as they lie, off", "moved, off", "area off"], rows))


def found_in(rasters: list[Path], out: Path, model: str) -> Summary:
    """The summary of a scan into one layer.  model : MODEL, or MODEL:NAME=VALUE."""
    name, _, option = model.partition(":")
    options = dict([option.split("=")]) if option else {}
    asked = Settings(model=name, options=options)
    (summary,), failures = scan_files(rasters, asked, str(out), Output(overwrite=True))
    assert not failures, failures
    return summary


def cut(
    path: Path,
    parts: list[tuple[float, float, float, float]],
    folder: Path,
    random: np.random.Generator | None = None,
    shift: float = 0.0,
) -> Iterator[Path]:
    """Pieces of a raster, each moved by up to `shift` metres in some direction."""
    with rasterio.open(path) as file:
        for number, (x, y, width, height) in enumerate(parts):
            left, top = round(x * file.width), round(y * file.height)
            window = Window(left, top, round(width * file.width), round(height * file.height))
            turn, far = (0, 0) if random is None else random.uniform((0, 0), (2 * np.pi, shift))
            place = Affine.translation(far * np.cos(turn), far * np.sin(turn)) * file.window_transform(window)
            piece = folder / f"piece-{number}.tif"
            profile = {**file.profile, "width": window.width, "height": window.height, "transform": place}
            with rasterio.open(piece, "w", **profile) as copy:
                copy.write(file.read(window=window))
                copy.descriptions = file.descriptions
            yield piece


if __name__ == "__main__":
    main()

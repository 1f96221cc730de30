"""Makes the pictures of these pages: `python docs/images/make.py`, in the root of the repository."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from ecodetect_cli.main import main
from PIL import Image

HERE = Path(__file__).parent
SAMPLES = HERE.parents[1] / "sample_data"
WIDTH_PX, COLOURS = 800, 64  # below 400 kB, which a page can bear


def make(name: str, *scan: str) -> None:
    """Scan, and keep the picture in fewer pixels and colours."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "map.png"
        code = main(
            ["scan", *scan, "-o", str(Path(folder) / "found.geojson"), "--picture", str(picture), "-q"]
        )
        if code:
            sys.exit(code)
        with Image.open(picture) as drawn:
            height = round(drawn.height * WIDTH_PX / drawn.width)
            small = drawn.convert("RGB").resize((WIDTH_PX, height), Image.Resampling.LANCZOS)
    small.quantize(COLOURS, dither=Image.Dither.NONE).save(HERE / name, optimize=True)


if __name__ == "__main__":
    make("dryland_map.png", str(SAMPLES / "dryland.tif"))
    make("dryland_threshold.png", str(SAMPLES / "dryland.tif"), "-m", "threshold")

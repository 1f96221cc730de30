"""Makes the pictures of these pages: `python docs/images/make.py`, in the root of the repository."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from ecodetect_cli.main import main
from PIL import Image

HERE = Path(__file__).parent
SAMPLES = HERE.parents[1] / "sample_data"
WIDTH_PX = 800
# As many of the ground as stay below 400 kB, which a page can bear; and some for what is drawn, which is too
# thin to have a say among the pixels of the ground and would turn grey.
GROUND, DRAWN = 80, 16
VIVID = (
    110  # difference between the largest and the smallest of red, green and blue, from which a pixel is drawn
)


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
    in_few_colours(small).save(HERE / name, optimize=True)


def in_few_colours(image: Image.Image) -> Image.Image:
    """The picture with a palette in which what is drawn has colours of its own."""
    pixels = np.asarray(image)
    is_vivid = np.ptp(pixels.astype(int), axis=2) >= VIVID
    palette = []
    for part, colours in ((pixels[~is_vivid], GROUND), (pixels[is_vivid], DRAWN)):
        if len(part):
            found = Image.fromarray(part[None]).quantize(colours, kmeans=3)
            palette += (found.getpalette() or [])[: 3 * colours]
    chosen = Image.new("P", (1, 1))
    chosen.putpalette(palette)
    return image.quantize(palette=chosen, dither=Image.Dither.NONE)


if __name__ == "__main__":
    make("dryland_map.png", str(SAMPLES / "dryland.tif"))
    make("dryland_threshold.png", str(SAMPLES / "dryland.tif"), "-m", "threshold")

"""All boxes of a model on a picture.

    python -m benchmarks.accuracy.boxes_picture PICTURE -m MODEL -o boxes.png

Boxes with a score over 0.1 are drawn in white, the surer the more opaque; those that count, over the model's
own threshold (or --score), in red. After the figures of Jackson and Obara, "Avoiding Over-Detection".
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw

import ecodetect
from ecodetect.models import choosing as models

LEAST = 0.1
WHITE, RED = (255, 255, 255), (230, 30, 30)


@click.command()
@click.argument("picture", type=click.Path(exists=True, path_type=Path))
@click.option("-m", "--model", required=True)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path))
@click.option("--scale", type=int, default=2, show_default=True, help="Pixels drawn for one of the picture.")
@click.option("--score", type=float, help="Other than the model's own.")
@click.option("--head", type=click.Choice(["card", "one", "many"]), help="Head of yolo.")
def main(picture: Path, model: str, out: Path, scale: int, score: float | None, head: str | None) -> None:
    """Draw."""
    options = {"head": head} if head else {}
    found = ecodetect.scan(picture, model=model, score=LEAST, options=options)
    own = dict(zip(found.classes, models.card(model).thresholds["f1"], strict=True))
    least = np.array([own[label] if score is None else score for label in found.labels])
    with Image.open(picture) as image:
        sheet = image.convert("RGBA")
    sheet = sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.BICUBIC)
    accepted = found.score >= least
    for rows, colour in ((~accepted, WHITE), (accepted, RED)):
        for box, value in zip(found.bounds()[rows] * scale, found.score[rows], strict=True):
            layer = Image.new("RGBA", sheet.size, (*colour, 0))
            ImageDraw.Draw(layer).rectangle(
                tuple(box.tolist()), outline=(*colour, round(255 * float(value))), width=scale
            )
            sheet.alpha_composite(layer)
    sheet.convert("RGB").save(out)
    click.echo(f"{int(accepted.sum())} of {len(found)} boxes over {LEAST:g} count; {out}")


if __name__ == "__main__":
    main()

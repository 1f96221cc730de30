"""A folder with one mask for each object of an image, as the Data Science Bowl 2018 laid them out; read only.

Each picture of the folder is one object, all its parts one shape, whatever value its pixels have.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ecodetect.errors import LayerError
from ecodetect.formats.collecting import Collector, Unusable
from ecodetect.formats.image_matching import base_name, check_size
from ecodetect.formats.labels.label_image import read_band
from ecodetect.formats.labels.masks import outline
from ecodetect.grid import Grid
from ecodetect.layer import Layer

_PICTURES = (".png", ".tif", ".tiff")
_MOST_FILES = 100_000


def recognises(path: Path, head: bytes) -> bool:
    """Whether a folder holds pictures that can be masks, and nothing else."""
    if not path.is_dir():
        return False
    files = [file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")]
    return bool(files) and all(file.suffix.lower() in _PICTURES for file in files)


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """An object for each mask, along the edges of its pixels, in pixels of `grid`; `id` is its file's stem.

    Raises LayerError for masks of another size than the raster or of different sizes, and for label images.
    """
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _PICTURES)
    if len(files) > _MOST_FILES:
        raise LayerError(f"{path} has more than {_MOST_FILES:,} masks; make one label image of them.")
    collector = Collector(path, "mask")
    for file in files:
        values, own = read_band(file)
        size = (own.width, own.height)
        check_size(size, grid or (None if collector.size is None else Grid(*collector.size)), file)
        collector.size = size
        if len(np.unique(values[values != 0])) > 1:
            raise LayerError(f"{file} has several values: it is a label image, not the mask of one object.")
        try:
            shape = outline(values != 0)
        except Unusable as reason:
            collector.leave_out(reason, file.name)
            continue
        source = {} if image is None else {"source": base_name(image)}
        collector.add(shape, {"id": file.stem, **source})
    return collector.layer(grid)

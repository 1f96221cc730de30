"""What a user says about annotations and the rasters they are on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ecodetect.bundle.values import ValueUnit
from ecodetect.raster.options import RasterOptions
from ecodetect.sizes import Length


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotationOptions(RasterOptions):
    """What the user says about the data, beside how rasters are opened.

    class_column : column with the classes; found by its name if not given.
    radius : size of individuals marked by a point, where the file doesn't say it row by row; "contour": boxes
        from the outline around each point, see `outlining`.
    complete : file of polygons inside of which annotation is complete; "image": everywhere.
    complete_layer : its layer, in a file with several.
    ignore : files of shapes, or classes, from which nothing is learned.
    edge : width of a strip along each raster's edge from which nothing is learned.
    layer : layer of the annotations, in a file with several.
    empty_images : images that a file about many doesn't name are empty, not unknown.
    keep_spelling : classes are as they are written; otherwise those that differ in case, blanks or the way
        accents are stored are one.
    values : the values that count as black and white in the rasters; None: inferred from their values.
    """

    class_column: str | None = None
    radius: Length | Literal["contour"] | None = None
    complete: str | None = None
    complete_layer: str | None = None
    ignore: tuple[str, ...] = ()
    edge: Length | None = None
    layer: str | None = None
    empty_images: bool = False
    keep_spelling: bool = False
    values: ValueUnit | None = None

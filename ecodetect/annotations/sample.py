"""One training example: pixels with what is known about every pixel and the objects on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.grid import Floats

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class Objects:
    """Annotated individuals on a sample, in its pixels (continuous, x right, y down, outer corner 0, 0).

    xy : (N, 2), centres: of gravity for polygons, whose box may lie elsewhere about it.
    box : (N, 4), xmin, ymin, xmax, ymax (of a point: about its diameter); NaN where the size is unknown.
    label : int64 (N,), index of the class.
    accuracy_px : (N,), how far off the position may be; 0 where nothing is known of it.
    shape : object (N,), outlines as shapely geometries, empty where there is none; None where nobody asked.
    """

    xy: Floats
    box: Floats
    label: NDArray[np.int64]
    accuracy_px: Floats
    shape: NDArray[np.object_] | None = None

    @classmethod
    def about(cls, xy: Floats, size: Floats, label: NDArray[np.int64], accuracy_px: Floats) -> Objects:
        """Those whose boxes lie about their centres.  size : (N, 2), width and height; NaN: unknown."""
        return cls(xy, np.concatenate([xy - size / 2, xy + size / 2], axis=1), label, accuracy_px)

    def __len__(self) -> int:
        return len(self.xy)

    def __getitem__(self, rows: NDArray[Any] | slice) -> Objects:
        shape = None if self.shape is None else self.shape[rows]
        return Objects(self.xy[rows], self.box[rows], self.label[rows], self.accuracy_px[rows], shape)

    def shifted(self, step: NDArray[Any]) -> Objects:
        """The same in pixels of an image that begins elsewhere.  step : (2,), added to each place."""
        step = np.asarray(step, np.float64)
        shape = None
        if self.shape is not None:
            shape = np.asarray(shapely.transform(self.shape, lambda xy: xy + step), dtype=object)
        return Objects(self.xy + step, self.box + np.tile(step, 2), self.label, self.accuracy_px, shape)

    @property
    def size(self) -> Floats:
        """(N, 2), width and height of the boxes; NaN where unknown."""
        sides: Floats = self.box[:, 2:] - self.box[:, :2]
        return sides

    @property
    def is_sized(self) -> Mask:
        """(N,), whether the box is known."""
        return np.asarray(np.isfinite(self.box).all(axis=1), np.bool_)


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """What a network is trained on.

    image : float32 (B, H, W), scaled as the card says; the card's fill value where not valid.
    valid : bool (H, W), there are data.
    known : bool (H, W), annotation is complete: empty ground is background. Elsewhere only objects count.
    ignored : bool (H, W), doubtful: no loss here, whatever is predicted.
    objects : centres may lie outside the image by what a target reaches.
    beside : bool (H, W), beside ignored ground that may hide a part of individuals nobody has marked, and so
        not known, but annotation of those that lie wholly outside it is complete: a box with its middle here
        is known to be wrong if it doesn't reach ignored ground. None: nowhere.

    A pixel counts in the loss if it is valid, not ignored, and either known or covered by an object's target.
    """

    image: NDArray[np.float32]
    valid: Mask
    known: Mask
    ignored: Mask
    objects: Objects
    beside: Mask | None = None

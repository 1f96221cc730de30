"""Candidate patches: the contour of each proposed object, and a square around it.

For a classifier or a person: the proposals of R-CNN (Girshick et al. 2014, arXiv:1311.2524), here from any
detector, usually `threshold`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from ecodetect.detections import Detections
from ecodetect.layer import Layer
from ecodetect.sizes import Length


@dataclass(frozen=True, slots=True)
class PatchSize:
    """Squares around candidates.

    side : of every square; None: 1.2 times the longer side of the candidate's box.
    """

    side: Length | None = None

    def add_to(self, layer: Layer, found: Detections) -> Layer:
        """A layer with two features a candidate, in turn: its shape and its square.

        layer : the candidates, as `found.to_layer` makes it.
        The column `shape` says "contour" or "patch"; both have the same id and the candidate's other columns.
        Squares aren't clipped at the raster's edge: they have one centre and one size.
        """
        bounds, centres = found.bounds(), found.centres()
        if self.side is None:
            half = (bounds[:, 2:] - bounds[:, :2]).max(axis=1, initial=1.0) * 0.6
        else:
            half = np.full(len(found), self.side.pixels(found.grid.gsd, name="side") / 2)
        low, high = centres - half[:, None], centres + half[:, None]
        geometry = np.empty(2 * len(found), dtype=object)
        geometry[0::2] = layer.geometry
        geometry[1::2] = shapely.box(low[:, 0], low[:, 1], high[:, 0], high[:, 1])
        columns = {name: np.repeat(values, 2) for name, values in layer.columns.items()}
        columns["shape"] = np.array(["contour", "patch"] * len(found), dtype=object)
        return Layer(geometry, columns, grid=layer.grid)

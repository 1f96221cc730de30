"""Columnar detections: points, boxes or polygons in the pixels of one Grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.errors import GridError
from ecodetect.grid import Floats, Grid
from ecodetect.layer import Layer

if TYPE_CHECKING:
    import geopandas

GeometryType = Literal["point", "box", "polygon"]


@dataclass(frozen=True, eq=False, slots=True)
class Detections:
    """Objects found, all of one kind, in pixels of `grid`.

    grid : the Grid whose pixels the coordinates are (continuous, x right, y down).
    kind : "point", "box" or "polygon".
    geometry : point float64 (N, 2) as x, y; box float64 (N, 4) as xmin, ymin, xmax, ymax;
        polygon object (N,) of shapely Polygon or MultiPolygon.
    score : float64 (N,) in [0, 1], higher is more certain.
    label : int64 (N,), index into `classes`.
    classes : names, in the order of the model's card.
    diameter : float64 (N,) in pixels, or None: the size of objects whose geometry doesn't show it (points).
    density : float32 (K, H, W), individuals of each class per pixel of a chip, from a detector that also
        counts individuals it can't separate, or None; it belongs to the whole chip, so subsets don't keep it.
    score_map : float32 (K, h, w) in [0, 1], the map of scores that detections come from, one per class, or
        None; with cells of `Needs.map_px` pixels, starting at the chip's first pixel; NaN where unknown. It
        belongs to the whole chip, like `density`.
    """

    grid: Grid
    kind: GeometryType
    geometry: NDArray[Any]
    score: Floats
    label: NDArray[np.int64]
    classes: tuple[str, ...]
    diameter: Floats | None = None
    density: NDArray[np.float32] | None = None
    score_map: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n = len(self.geometry)
        shapes = {"point": (n, 2), "box": (n, 4), "polygon": (n,)}
        if self.kind not in shapes or self.geometry.shape != shapes[self.kind]:
            raise ValueError(
                f"geometry of shape {self.geometry.shape} for {n} detections of kind {self.kind}"
            )
        for name, values in (("score", self.score), ("label", self.label), ("diameter", self.diameter)):
            if values is not None and values.shape != (n,):
                raise ValueError(f"{name} must have shape ({n},), but has {values.shape}")

    @classmethod
    def empty(
        cls, grid: Grid, kind: GeometryType, classes: tuple[str, ...], *, sized: bool = False
    ) -> Detections:
        """No detections; `sized` if detections of the same detector carry a diameter."""
        shape = {"point": (0, 2), "box": (0, 4), "polygon": (0,)}[kind]
        geometry = np.empty(shape, dtype=object if kind == "polygon" else np.float64)
        none = np.empty(0)
        return cls(grid, kind, geometry, none, np.empty(0, np.int64), classes, none if sized else None)

    @classmethod
    def concatenate(cls, parts: Sequence[Detections]) -> Detections:
        """Several Detections with the same grid, kind and classes as one, in order."""
        first = parts[0]
        for part in parts[1:]:
            first.grid.assert_same(part.grid)
            if (part.kind, part.classes) != (first.kind, first.classes):
                raise GridError(
                    f"Detections differ: {first.kind} {first.classes}, {part.kind} {part.classes}."
                )
        diameters = [part.diameter for part in parts if part.diameter is not None]
        return cls(
            first.grid,
            first.kind,
            np.concatenate([part.geometry for part in parts]),
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.label for part in parts]),
            first.classes,
            np.concatenate(diameters) if len(diameters) == len(parts) else None,
        )

    def __len__(self) -> int:
        return len(self.geometry)

    def __getitem__(self, rows: NDArray[Any] | slice) -> Detections:
        """The detections of a boolean mask, an index array or a slice."""
        diameter = None if self.diameter is None else self.diameter[rows]
        return Detections(
            self.grid,
            self.kind,
            self.geometry[rows],
            self.score[rows],
            self.label[rows],
            self.classes,
            diameter,
        )

    @property
    def labels(self) -> NDArray[np.object_]:
        """Class names, (N,)."""
        return np.array(self.classes, dtype=object)[self.label]

    def bounds(self) -> Floats:
        """Bounding boxes: xmin, ymin, xmax, ymax in pixels, (N, 4); for a point a square of its diameter."""
        if self.kind == "box":
            return np.asarray(self.geometry, np.float64)
        if self.kind == "polygon":
            return np.asarray(shapely.bounds(self.geometry), np.float64).reshape(-1, 4)
        half = np.zeros((len(self), 1)) if self.diameter is None else self.diameter[:, None] / 2
        return np.hstack([self.geometry - half, self.geometry + half])

    def centres(self) -> Floats:
        """Centres in pixels, (N, 2): of the bounding box, or the point itself."""
        if self.kind == "point":
            return np.asarray(self.geometry, np.float64)
        b = self.bounds()
        return np.stack([(b[:, 0] + b[:, 2]) / 2, (b[:, 1] + b[:, 3]) / 2], axis=1)

    def moved_to(self, grid: Grid) -> Detections:
        """The same objects in pixels of another grid on the same ground (a parent or resampled grid).

        Boxes stay boxes: both grids must have parallel axes, as crops and resamplings of one raster do.
        """
        if grid == self.grid:
            return self
        a, b, c, d, e, f = grid.pixels_from(self.grid)

        def step(xy: Floats) -> Floats:
            return np.stack([a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f], axis=1)

        geometry: NDArray[Any]
        if self.kind == "polygon":
            geometry = shapely.transform(self.geometry, step)
        else:
            flat = np.asarray(self.geometry, np.float64).reshape(-1, 2)
            geometry = step(flat).reshape(self.geometry.shape)
        diameter = None if self.diameter is None else self.diameter * abs(a * e - b * d) ** 0.5
        return Detections(grid, self.kind, geometry, self.score, self.label, self.classes, diameter)

    def shifted(self, dx: int, dy: int, grid: Grid) -> Detections:
        """The same objects in pixels of `grid`, of which this one's grid is a crop at (dx, dy): exact."""
        step = np.array([dx, dy], np.float64)
        geometry: NDArray[Any]
        if self.kind == "polygon":
            geometry = np.asarray(shapely.transform(self.geometry, lambda xy: xy + step), dtype=object)
        else:
            flat = np.asarray(self.geometry, np.float64).reshape(-1, 2)
            geometry = (flat + step).reshape(self.geometry.shape)
        return Detections(grid, self.kind, geometry, self.score, self.label, self.classes, self.diameter)

    def shapes(self) -> NDArray[np.object_]:
        """shapely geometries in pixels, (N,): points, four-cornered polygons, or the polygons themselves."""
        if self.kind == "polygon":
            return self.geometry
        if self.kind == "point":
            return np.asarray(shapely.points(self.geometry.reshape(-1, 2)), dtype=object).reshape(-1)
        x0, y0, x1, y1 = self.geometry.T
        return np.asarray(shapely.box(x0, y0, x1, y1), dtype=object).reshape(-1)

    def areas_m2(self) -> Floats:
        """Ground area in m², (N,); NaN where it is unknown (points without a diameter, no CRS)."""
        return self._sizes_m()[0]

    def diameters_m(self) -> Floats:
        """Diameter in m of the circle with the same area (a box: its longer side), (N,); NaN if unknown."""
        return self._sizes_m()[1]

    def _sizes_m(self) -> tuple[Floats, Floats]:
        """Areas in m² and diameters in m."""
        pixels, pixel_m2 = self._sizes_px(), self._pixel_area_m2()
        return pixels["area_px"] * pixel_m2, pixels["diameter_px"] * np.sqrt(pixel_m2)

    def _sizes_px(self) -> dict[str, Floats]:
        """Areas and diameters in pixels, as in `areas_m2` and `diameters_m`."""
        if self.kind == "box":
            b = self.geometry
            width, height = b[:, 2] - b[:, 0], b[:, 3] - b[:, 1]
            return {"area_px": width * height, "diameter_px": np.maximum(width, height)}
        if self.kind == "polygon":
            area = np.asarray(shapely.area(self.geometry), np.float64)
            return {"area_px": area, "diameter_px": np.sqrt(area * 4 / np.pi)}
        diameter = np.full(len(self), np.nan) if self.diameter is None else self.diameter
        return {"area_px": np.pi / 4 * diameter**2, "diameter_px": diameter}

    def _pixel_area_m2(self) -> Floats:
        jacobian = self.grid.metres_per_pixel(self.centres())
        return np.asarray(np.abs(np.linalg.det(jacobian)) if len(jacobian) else np.empty(0), np.float64)

    def to_layer(self, *, source: str, ids: Sequence[str] | None = None, is_metric: bool = True) -> Layer:
        """The layer to write into a file, with geometry in pixels of `grid`.

        Columns: id, label, score, area_m2, diameter_m, source; area_px, diameter_px unless `is_metric`.
        """
        columns: dict[str, NDArray[Any]] = {
            "id": np.array(list(ids) if ids is not None else [""] * len(self), dtype=object),
            "label": self.labels,
            "score": self.score,
            **(
                dict(zip(("area_m2", "diameter_m"), self._sizes_m(), strict=True))
                if is_metric
                else self._sizes_px()
            ),
            "source": np.array([source] * len(self), dtype=object),
        }
        return Layer(self.shapes(), columns, grid=self.grid)

    def to_geodataframe(self, *, source: str = "") -> geopandas.GeoDataFrame:
        """A GeoDataFrame in the raster's CRS, or in its transform's coordinates without a CRS."""
        import geopandas

        layer = self.to_layer(source=source)
        data = {name: values for name, values in layer.columns.items() if name != "id"}
        return geopandas.GeoDataFrame(data, geometry=layer.in_world(), crs=self.grid.crs)

"""Render the sample scenes, dry scrubland seen from the air and fluorescent cells, with exact truth.

    python sample_data/make.py [--out DIR] [--seed N] [--only dryland|cells]

The same seed gives the same pixels on every machine: random numbers are integers and 53-bit fractions of
PCG64, and only operations that IEEE 754 defines to the last bit (+ - * /, square root, comparisons, one at a
time) lead to a pixel. So there is no exp, power, matrix product or float sum here, and sines are rounded. It
stands alone, in one file, and does not import ecodetect, which is tested and trained on what it makes.

Coordinates are continuous pixels (x right, y down, (0, 0) the outer corner of the first pixel, whose centre
is at .5) unless a name ends in `_m`: scene metres, the same frame times the GSD.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
import shapely
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from shapely.geometry import Polygon

Floats = NDArray[np.float64]

HERE = Path(__file__).resolve().parent
CRS = "EPSG:32630"  # UTM 30 N, for a place in the dry south-east of Spain
ORIGIN = (562000.0, 4076200.0)  # easting, northing of the raster's upper left corner
GSD_M = 0.2
SNAP_M = 0.01  # outlines have their corners on this grid: valid ones stay so when written with few digits
NODATA = 0
DRYLAND_SEED, CELLS_SEED = 8, 8

Colour = tuple[float, float, float, float]  # light in red, green, blue and near infrared, of 255, in full sun


@dataclass(frozen=True)
class _Season:
    soil: tuple[Colour, Colour, Colour]  # pale, ochre, stony
    litter: Colour
    shrub: tuple[Colour, Colour]  # leafy, twiggy: each plant is a mixture
    bush: tuple[Colour, Colour]  # dry, green


SEASONS = {
    "dry": _Season(
        soil=((180, 164, 141, 194), (192, 168, 139, 204), (160, 146, 127, 173)),
        litter=(188, 170, 132, 200),
        shrub=((64, 73, 43, 194), (82, 79, 58, 176)),
        bush=((122, 95, 72, 150), (84, 88, 54, 166)),
    ),
    "green": _Season(
        soil=((172, 160, 132, 196), (184, 164, 130, 204), (150, 140, 120, 168)),
        litter=(142, 148, 98, 202),
        shrub=((52, 74, 36, 214), (64, 76, 46, 198)),
        bush=((98, 94, 62, 172), (70, 88, 46, 194)),
    ),
}
TRIES = 300  # places to try for a group of shrubs
SHADE = (0.36, 0.39, 0.45, 0.41)  # what sky and neighbouring leaves alone give, per band: bluer than the sun


@dataclass(frozen=True)
class Shrub:
    """One shrub as seen from above.

    crown : what is visible of it, neither hidden by a larger neighbour nor beyond the edge or in nodata.
    x, y : centre of the crown's bounding box.
    diameter_m : of the circle as large as the visible crown.
    touching : its crown touches another shrub's.
    """

    crown: Polygon
    x: float
    y: float
    diameter_m: float
    touching: bool


@dataclass(frozen=True)
class Cell:
    """One cell: centre of its bounding box, and diameter of the circle as large as its outline."""

    x: float
    y: float
    diameter_px: float


# ---- exact randomness --------------------------------------------------------------------------------


def _stream(*key: int) -> np.random.Generator:
    """A generator of its own for each purpose: changing one part of a scene leaves the others alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random())  # Generator.uniform may fuse multiply and add


def _direction(turn: float) -> tuple[float, float]:
    """Cosine and sine of `turn` (1 is the full circle), rounded: libraries differ in the last bit."""
    return round(math.cos(math.tau * turn), 9), round(math.sin(math.tau * turn), 9)


def _spline(count: int, gsd: float, spacing: float) -> tuple[NDArray[np.int64], list[Floats]]:
    """Lattice cell and the four cubic B-spline weights of each pixel centre along one axis."""
    position: Floats = (np.arange(count, dtype=np.float64) + 0.5) * gsd / spacing
    cell = np.floor(position)
    t = position - cell
    s = 1 - t
    weights = [s * s * s, 3 * t * t * t - 6 * t * t + 4, 3 * s * s * s - 6 * s * s + 4, t * t * t]
    return cell.astype(np.int64), [w / 6 for w in weights]


def _noise(
    rng: np.random.Generator, shape: tuple[int, int], gsd: float, wavelengths: Sequence[float]
) -> Floats:
    """Smooth noise of mean 0 and standard deviation about 1.

    `wavelengths` run from long to short in the unit of `gsd`; amplitude goes with their square root. The
    field belongs to the ground, not to the pixels: another GSD samples the same, less what it can't resolve.
    """
    total: Floats = np.zeros(shape)
    for wavelength in wavelengths:
        spacing = wavelength / 2
        if spacing < 0.8 * gsd:
            break
        size = [math.ceil(round(n * gsd, 3) / spacing) + 4 for n in shape]
        lattice = rng.integers(-1000, 1001, size=size) / 1000
        row, row_weights = _spline(shape[0], gsd, spacing)
        column, column_weights = _spline(shape[1], gsd, spacing)
        bands = np.zeros((shape[0], size[1]))
        for i in range(4):
            bands += row_weights[i][:, None] * lattice[row + i]
        octave = np.zeros(shape)
        for i in range(4):
            octave += column_weights[i] * bands[:, column + i]
        total += octave * (math.sqrt(wavelength) / 0.277)  # 0.277: deviation of a spline of uniform numbers
    return total / math.sqrt(math.fsum(wavelengths))


def _grain(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Nearly normal noise per pixel, deviation 1: the sum of four uniform numbers."""
    four: Floats = rng.integers(0, 256, size=(4, *shape), dtype=np.uint8).astype(np.float64)
    return np.asarray((four[0] + four[1] + four[2] + four[3] - 510) / 147.8)


def _blur(image: Floats, times: int) -> Floats:
    """Binomial blur of the last two axes, `times` x (1 2 1)/4: a Gaussian of variance times/2 px²."""
    for _ in range(times):
        for axis in (-1, -2):
            rim = [(1, 1) if axis % image.ndim == i else (0, 0) for i in range(image.ndim)]
            padded = np.moveaxis(np.pad(image, rim, mode="edge"), axis, -1)
            image = np.moveaxis((padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]) / 4, -1, axis)
    return image


def _ramp(values: Floats, low: float, high: float) -> Floats:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


# ---- dryland -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plant:
    """A plant as painted: an outline and the leaf clumps (x, y, radius, tint) under it, in scene metres."""

    outline_m: Polygon
    clumps_m: tuple[tuple[float, float, float, float], ...]
    height_m: float
    colour: tuple[float, ...]

    @property
    def reach_m(self) -> float:
        left, top, right, bottom = self.outline_m.bounds
        return float(max(right - left, bottom - top)) / 2


def _grow(
    rng: np.random.Generator, x_m: float, y_m: float, diameter_m: float, colours: tuple[Colour, Colour]
) -> _Plant:
    """A plant of ragged leaf clumps, with the area of a circle of that diameter."""
    radius = diameter_m / 2
    clump = 0.22 + 0.16 * radius  # mean radius of a leaf clump
    stretch, (ax, ay) = _between(rng, 0.75, 1.0), _direction(rng.random() / 2)
    clumps = [(0.0, 0.0, 0.55 * radius, 1.0)]  # a core that holds the crown together
    for _ in range(3 + round(5.0 * (radius / clump) * (radius / clump) * 0.55)):
        (dx, dy), far = _direction(rng.random()), radius * math.sqrt(rng.random())
        along, across = far * (dx * ax + dy * ay), stretch * far * (dy * ax - dx * ay)
        reach = min(clump * _between(rng, 0.6, 1.35), 0.75 * radius)
        clumps.append((along * ax - across * ay, along * ay + across * ax, reach, _between(rng, 0.78, 1.22)))
    ragged = []
    for cx, cy, reach, _ in clumps:
        spin = rng.random()
        corners = []
        for k in range(11):
            dx, dy = _direction((k + spin) / 11)
            far = reach * _between(rng, 0.8, 1.15)
            corners.append((cx + far * dx, cy + far * dy))
        ragged.append(corners)
    rough = _largest(shapely.union_all([Polygon(corners) for corners in ragged]))
    scale = round(math.sqrt(math.pi * radius * radius / Polygon(rough.exterior).area), 9)
    placed = [Polygon([(x_m + scale * x, y_m + scale * y) for x, y in corners]) for corners in ragged]
    outline = Polygon(_largest(shapely.union_all(placed, grid_size=SNAP_M)).exterior)
    mix = rng.random()
    tone = _between(rng, 0.88, 1.1)
    return _Plant(
        outline_m=outline,
        clumps_m=tuple((x_m + scale * x, y_m + scale * y, scale * r, tint) for x, y, r, tint in clumps),
        height_m=(0.25 + 0.36 * diameter_m) * _between(rng, 0.8, 1.15),
        colour=tuple(tone * (a + mix * (b - a)) for a, b in zip(*colours, strict=True)),
    )


def _largest(shape: Any) -> Polygon:
    return max(shapely.get_parts(shape), key=lambda part: float(part.area))


def _place_shrubs(
    rng: np.random.Generator, count: int, ground_m: Polygon, colours: tuple[Colour, Colour]
) -> list[list[_Plant]]:
    """Groups of touching shrubs of 2 to 8 m: per 20 shrubs a trio, per 10 a pair, the rest alone."""
    trios, pairs = count // 20, count // 10
    sizes = [3] * trios + [2] * pairs + [1] * (count - 3 * trios - 2 * pairs)
    right_m, bottom_m = ground_m.bounds[2:]
    groups: list[list[_Plant]] = []
    for size in sizes:
        for _ in range(TRIES):
            at = (_between(rng, 0, right_m), _between(rng, 0, bottom_m))
            group = _grow_group(rng, at, size, colours)
            if group is not None and _fits(group, groups, ground_m):
                groups.append(group)
                break
        else:
            raise ValueError(f"no room for {count} shrubs on {right_m:g} x {bottom_m:g} m; ask for fewer")
    return groups


def _grow_group(
    rng: np.random.Generator, at_m: tuple[float, float], size: int, colours: tuple[Colour, Colour]
) -> list[_Plant] | None:
    """`size` shrubs, largest (it covers the others) first, or None if more than their rims overlap."""
    draws = [rng.random() for _ in range(size)]
    diameters = sorted((2.15 + 5.8 * u * (0.35 + 0.65 * u) for u in draws), reverse=True)
    group = [_grow(rng, *at_m, diameters[0], colours)]
    for diameter in diameters[1:]:
        host = group[int(rng.integers(len(group)))]
        (dx, dy), far = _direction(rng.random()), (host.reach_m + diameter / 2) * _between(rng, 0.78, 0.95)
        middle = host.clumps_m[0]
        plant = _grow(rng, middle[0] + far * dx, middle[1] + far * dy, diameter, colours)
        above = shapely.union_all([other.outline_m for other in group], grid_size=SNAP_M)
        visible = plant.outline_m.difference(above, grid_size=SNAP_M)
        if not plant.outline_m.intersects(host.outline_m) or not isinstance(visible, Polygon):
            return None
        if visible.interiors or visible.area < 0.85 * plant.outline_m.area or visible.area < 3.2:
            return None
        group.append(plant)
    return group


def _fits(group: list[_Plant], others: list[list[_Plant]], ground_m: Polygon) -> bool:
    """Whether all centres are on the ground, no crown is cut much, and 0.8 m lie around the group."""
    for plant in group:
        on_ground = plant.outline_m.intersection(ground_m, grid_size=SNAP_M)
        if not isinstance(on_ground, Polygon) or on_ground.area < max(0.6 * plant.outline_m.area, 3.2):
            return False  # 3.2 m²: a circle of 2 m
        x_m, y_m = plant.clumps_m[0][:2]
        if not ground_m.contains(shapely.box(*plant.outline_m.bounds).centroid):
            return False
        for other in (p for g in others for p in g):
            ox_m, oy_m = other.clumps_m[0][:2]
            near = 2 * (plant.reach_m + other.reach_m) + 0.8
            is_near = abs(x_m - ox_m) < near and abs(y_m - oy_m) < near
            if is_near and plant.outline_m.distance(other.outline_m) < 0.8:
                return False
    return True


def _soil(seed: int, shape: tuple[int, int], gsd_m: float, season: str) -> tuple[Floats, Floats]:
    """Colour of the bare ground, (4, H, W), and its small relief in metres, (H, W)."""
    pale, ochre, stony = (np.array(c, dtype=np.float64)[:, None, None] for c in SEASONS[season].soil)
    litter = np.array(SEASONS[season].litter, dtype=np.float64)[:, None, None]

    def field(purpose: int, *wavelengths_m: float) -> Floats:
        return _noise(_stream(seed, purpose), shape, gsd_m, wavelengths_m)

    broad = field(10, 120, 60, 30, 15, 8, 4)
    patchy = field(11, 45, 22, 11, 5, 2.5, 1.2)
    fine = field(12, 3, 1.5, 0.8, 0.45)
    grit = field(13, 0.9, 0.5)
    colour = pale + _ramp(broad, -0.6, 1.4) * (ochre - pale)
    colour = colour + 0.85 * _ramp(patchy + 0.3 * fine, 0.5, 1.7) * (stony - colour)
    colour = colour + 0.6 * _ramp(field(14, 30, 12, 5, 2, 1) + 0.35 * fine, 0.8, 1.9) * (litter - colour)
    tone = 1 + 0.035 * broad + 0.03 * patchy + 0.045 * fine + 0.03 * grit
    # Crusted hollows: the dark bare ground that a threshold mistakes for a plant now and then.
    tone = tone * (1 - 0.3 * _ramp(field(15, 26, 9, 4, 1.5) + 0.25 * fine, 1.9, 2.6))
    # Bleached clearings.
    tone = tone * (1 + 0.13 * _ramp(field(16, 50, 20, 8, 3) + 0.2 * fine, 1.0, 1.9))
    # Rills follow the zero line of a winding field and come and go.
    winding = np.abs(field(17, 90, 40, 16, 7) + 0.05 * fine)
    rill = (1 - _ramp(winding, 0.0, 0.045)) * _ramp(field(18, 40, 20), -0.2, 0.9)
    tone = tone * (1 - 0.17 * rill) * (1 + 0.06 * (1 - _ramp(winding, 0.03, 0.16)) * _ramp(broad, -0.5, 0.8))
    # Tufts too small to be called bushes, thick in places.
    tufts = _ramp(field(21, 0.8, 0.45) + 0.55 * field(19, 25, 10, 4), 1.9, 2.6)
    colour = colour * (tone * (1 - 0.33 * tufts))
    relief_m = 0.06 * patchy + 0.022 * fine + 0.006 * grit - 0.06 * rill

    # A faint track: two wheel ruts, bleached, with a darker strip of litter between them.
    rng = _stream(seed, 20)
    x_m = (np.arange(shape[1]) + 0.5) * gsd_m
    y_m = (np.arange(shape[0])[:, None] + 0.5) * gsd_m
    width_m, height_m = shape[1] * gsd_m, shape[0] * gsd_m
    bend = _noise(rng, (1, shape[1]), gsd_m, (160, 80, 40))[0]
    slope = _between(rng, -0.45, 0.45)
    course = height_m * _between(rng, 0.35, 0.7) + slope * (x_m - width_m / 2) + 0.035 * height_m * bend
    off_m = np.abs(y_m - course) / math.sqrt(1 + slope * slope)
    wear = 0.75 + 0.25 * _ramp(patchy, -1, 1)
    rut = (1 - _ramp(np.abs(off_m - 0.8), 0.12, 0.5)) * wear
    verge = (1 - _ramp(off_m, 0.2, 0.5)) + (1 - _ramp(np.abs(off_m - 1.6), 0.1, 0.5))
    colour = colour * (1 + 0.13 * rut - 0.07 * verge)
    return colour, relief_m - 0.05 * rut


@dataclass
class _Canvas:
    """What stands on the ground, per pixel: its height in metres (0: nothing) and its colour in full sun."""

    gsd_m: float
    height_m: Floats
    colour: Floats

    def paint(self, plant: _Plant) -> None:
        """Put a plant on the canvas, over what it covers."""
        _, rows, columns = self.colour.shape
        left, top, right, bottom = (edge / self.gsd_m for edge in plant.outline_m.bounds)
        x0, x1 = max(math.floor(left), 0), min(math.ceil(right) + 1, columns)
        y0, y1 = max(math.floor(top), 0), min(math.ceil(bottom) + 1, rows)
        if x0 >= x1 or y0 >= y1:
            return
        x_m = (np.arange(x0, x1) + 0.5)[None, :] * self.gsd_m
        y_m = (np.arange(y0, y1) + 0.5)[:, None] * self.gsd_m
        shapely.prepare(plant.outline_m)
        inside = shapely.contains_xy(plant.outline_m, *np.broadcast_arrays(x_m, y_m))
        height = np.full(inside.shape, 0.4 * plant.height_m)
        tint = np.full(inside.shape, 0.85)
        middle = plant.clumps_m[0]
        reach2 = plant.reach_m * plant.reach_m
        for x, y, radius, shade in plant.clumps_m:
            away2 = (x - middle[0]) * (x - middle[0]) + (y - middle[1]) * (y - middle[1])
            foot = plant.height_m * (0.8 - 0.35 * min(away2 / reach2, 1.0)) - 0.4 * radius
            d2 = (x_m - x) * (x_m - x) + (y_m - y) * (y_m - y)
            top_m = foot + 0.75 * np.sqrt(np.maximum(radius * radius - d2, 0))
            higher = (d2 < radius * radius) & (top_m > height)
            height[higher] = top_m[higher]
            tint[higher] = shade
        window = (slice(y0, y1), slice(x0, x1))
        self.height_m[window][inside] = height[inside]
        for band, value in enumerate(plant.colour):
            self.colour[band][window][inside] = (value * tint)[inside]


def _shadow(height_m: Floats, gsd_m: float, sun: tuple[float, float, float]) -> Floats:
    """Hidden share of the sun's disc at each pixel, 0 to 1; `sun` is the unit vector towards it, z up."""
    across = math.sqrt(sun[0] * sun[0] + sun[1] * sun[1])
    rise_m = gsd_m * sun[2] / across  # a ray climbs this much per pixel
    rows, columns = height_m.shape
    steps = min(math.ceil(float(height_m.max()) / rise_m), max(rows, columns))
    padded = np.pad(height_m, steps + 1)
    hidden = np.zeros_like(height_m)
    for k in range(1, steps + 1):
        dx, dy = math.floor(k * sun[0] / across + 0.5), math.floor(k * sun[1] / across + 0.5)
        y0, x0 = steps + 1 + dy, steps + 1 + dx
        hidden = np.maximum(hidden, padded[y0 : y0 + rows, x0 : x0 + columns] - k * rise_m)
    return _ramp(hidden - height_m, 0.02, 0.3)


def _lit(height_m: Floats, gsd_m: float, sun: tuple[float, float, float]) -> Floats:
    """Cosine between the surface's normal and the sun, at least 0."""
    padded = np.pad(height_m, 1, mode="edge")
    east = (padded[1:-1, 2:] - padded[1:-1, :-2]) / (2 * gsd_m)
    south = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / (2 * gsd_m)
    cosine = (sun[2] - sun[0] * east - sun[1] * south) / np.sqrt(1 + east * east + south * south)
    return np.asarray(np.maximum(cosine, 0))


def render_dryland(
    seed: int,
    *,
    width: int = 1200,
    height: int = 1000,
    gsd_m: float = GSD_M,
    shrubs: int = 80,
    bushes: int = 1000,
    season: str = "dry",
    sun_azimuth_deg: float = 142.0,
    sun_elevation_deg: float = 43.0,
    exposure: float = 1.0,
) -> tuple[NDArray[np.uint8], list[Shrub]]:
    """Dry scrubland from the air: red, green, blue and near infrared, and each shrub in it.

    Parameters
    ----------
    seed : int
        Not negative; the same one gives the same pixels.
    width, height : int
        Pixels. The ground depends on their product with `gsd_m` only: half the GSD and twice the pixels show
        the same plants.
    gsd_m : float
        Metres per pixel.
    shrubs, bushes : int
        How many of 2 to 8 m, which are the truth, and of 0.3 to 1.2 m, which are not.
    season : "dry" or "green"
    sun_azimuth_deg, sun_elevation_deg : float
        Where the sun stands: clockwise from north, above the horizon (more than 0).
    exposure : float
        Factor on all bands.

    Returns
    -------
    image : uint8 ndarray of shape (4, height, width)
        0 is nodata: the upper right corner, cut off obliquely as at the end of a flight strip.
    shrubs : list of Shrub
        From top to bottom. All that are to be seen, the centre of each on valid ground.

    Raises
    ------
    ValueError
        If there is no room for so many shrubs.
    """
    palette, shape = SEASONS[season], (height, width)
    width_m, height_m = round(width * gsd_m, 3), round(height * gsd_m, 3)
    cut_x_m, cut_y_m = round(0.74 * width_m, 3), round(0.19 * height_m, 3)
    ground_m = Polygon([(0, 0), (cut_x_m, 0), (width_m, cut_y_m), (width_m, height_m), (0, height_m)])
    (north, east), (level, up) = _direction(sun_azimuth_deg / 360), _direction(sun_elevation_deg / 360)
    sun = (level * east, -level * north, up)

    groups = _place_shrubs(_stream(seed, 1), shrubs, ground_m, palette.shrub)
    rng = _stream(seed, 2)
    canvas = _Canvas(gsd_m, np.zeros(shape), np.zeros((4, *shape)))
    seeded: list[tuple[float, float]] = []
    for _ in range(bushes):
        x_m, y_m = _between(rng, 0, width_m), _between(rng, 0, height_m)
        if seeded and rng.random() < 0.6:  # bushes come in loose drifts: most stand near an earlier one
            (dx, dy), far_m = _direction(rng.random()), 9 * rng.random() * rng.random() + 0.6
            parent = seeded[int(rng.integers(len(seeded)))]
            x_m, y_m = parent[0] + far_m * dx, parent[1] + far_m * dy
        seeded.append((x_m, y_m))
        u = rng.random()
        canvas.paint(_grow(rng, x_m, y_m, 0.3 + 0.9 * u * math.sqrt(u), palette.bush))
    for group in groups:
        for plant in reversed(group):
            canvas.paint(plant)

    soil, relief_m = _soil(seed, shape, gsd_m, season)
    is_plant = canvas.height_m > 0
    leaves = _noise(_stream(seed, 3), shape, gsd_m, (1.2, 0.7, 0.45))
    surface_m = np.where(is_plant, canvas.height_m + 0.05 * leaves, relief_m)
    direct = _lit(surface_m, gsd_m, sun) / up * (1 - _shadow(canvas.height_m, gsd_m, sun))
    leaf_tone = np.where(is_plant, 1 + 0.1 * leaves, 1.0)
    bands = []
    for soil_band, plant_band, shade in zip(soil, canvas.colour, SHADE, strict=True):
        full_sun = np.where(is_plant, plant_band, soil_band) * leaf_tone
        bands.append(full_sun * (shade + (1 - shade) * np.minimum(direct, 1.35)))
    image = _blur(np.stack(bands), 1)

    haze = np.array((3, 5, 9, 1), dtype=np.float64)[:, None, None]
    grain = _blur(_grain(_stream(seed, 4), (4, *shape)), 1)  # blurred: an orthophoto is resampled
    image = np.clip(np.floor(exposure * (image + haze) + 1.8 * grain + 0.5), NODATA + 1, 255)
    across_m = (np.arange(width) + 0.5) * gsd_m
    down_m = (np.arange(height)[:, None] + 0.5) * gsd_m
    beyond = (across_m - cut_x_m) * cut_y_m > down_m * (width_m - cut_x_m)
    image = np.where(beyond, NODATA, image)
    return image.astype(np.uint8), _visible_shrubs(groups, ground_m, gsd_m)


def _visible_shrubs(groups: list[list[_Plant]], ground_m: Polygon, gsd_m: float) -> list[Shrub]:
    """The truth: each crown without what its larger neighbours hide and what the raster does not show."""
    shrubs = []
    for group in groups:
        crowns_m: list[Polygon] = []
        above: Any = Polygon()
        for plant in group:
            visible_m = plant.outline_m.difference(above, grid_size=SNAP_M)
            crowns_m.append(_largest(visible_m.intersection(ground_m, grid_size=SNAP_M)))
            above = above.union(plant.outline_m, grid_size=SNAP_M)
        for crown_m in crowns_m:
            touching = any(crown_m.distance(other) < SNAP_M for other in crowns_m if other is not crown_m)
            crown = Polygon([(x / gsd_m, y / gsd_m) for x, y in crown_m.exterior.coords])
            left, top, right, bottom = crown.bounds
            diameter_m = math.sqrt(4 * crown_m.area / math.pi)
            shrubs.append(Shrub(crown, (left + right) / 2, (top + bottom) / 2, diameter_m, touching))
    return sorted(shrubs, key=lambda shrub: (shrub.y, shrub.x))


# ---- cells -------------------------------------------------------------------------------------------


def render_cells(
    seed: int,
    *,
    width: int = 512,
    height: int = 512,
    cells: int = 150,
    diameter_px: float = 22.0,
    clumping: float = 0.4,
) -> tuple[NDArray[np.uint8], list[Cell]]:
    """Fluorescent cells under a microscope, after the SIMCEP simulator: blur, clumps, uneven light, noise.

    Parameters
    ----------
    seed : int
        Not negative; the same one gives the same pixels.
    width, height : int
        Pixels.
    cells : int
        How many.
    diameter_px : float
        Their mean diameter; it varies by up to a fifth.
    clumping : float
        Share of the cells, 0 to 1, that are put against another one.

    Returns
    -------
    image : uint8 ndarray of shape (height, width)
    cells : list of Cell
        From top to bottom; the centre of each lies in the picture.

    Raises
    ------
    ValueError
        If there is no room for so many cells.

    References
    ----------
    A. Lehmussola et al. (2007), Computational framework for simulating fluorescence microscope images with
    cell populations. IEEE Trans. Med. Imaging 26(7):1010-1016, doi:10.1109/TMI.2007.896925.
    """
    rng, shape = _stream(seed, 101), (height, width)
    placed = _place_cells(rng, shape, cells, diameter_px, clumping)
    texture = _noise(_stream(seed, 102), shape, 1.0, (diameter_px / 2, diameter_px / 4, diameter_px / 8))
    layers = [np.zeros(shape) for _ in range(3)]  # in focus, a little out of it, well out of it
    truth = []
    for x, y, diameter in placed:
        outline = _cell_outline(rng, x, y, diameter)
        left, top, right, bottom = outline.bounds
        truth.append(Cell((left + right) / 2, (top + bottom) / 2, math.sqrt(4 * outline.area / math.pi)))
        x0, x1 = max(math.floor(left), 0), min(math.ceil(right) + 1, width)
        y0, y1 = max(math.floor(top), 0), min(math.ceil(bottom) + 1, height)
        shapely.prepare(outline)
        px, py = np.meshgrid(np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5)
        inside = shapely.contains_xy(outline, px, py)
        d2 = ((px - x) * (px - x) + (py - y) * (py - y)) * (4 / (diameter * diameter))
        window = (slice(y0, y1), slice(x0, x1))
        glow = _between(rng, 60, 125) * (1.1 - 0.4 * np.minimum(d2, 1.5)) * (1 + 0.2 * texture[window])
        layers[int(rng.integers(3))][window] += np.where(inside, glow, 0.0)
    signal = _blur(_blur(_blur(layers[2], 5) + layers[1], 3) + layers[0], 2)
    halo = _blur(signal, 60)  # light scattered out of the plane
    cloudy = _noise(_stream(seed, 103), shape, 1.0, (320.0, 160.0))
    away_x = (np.arange(width) + 0.5) / width - _between(rng, 0.35, 0.65)
    away_y = (np.arange(height)[:, None] + 0.5) / height - _between(rng, 0.35, 0.65)
    light = 1.06 - 0.9 * (away_x * away_x + away_y * away_y)
    image = light * (16 + 4 * cloudy + signal + 0.18 * halo)
    image = image + np.sqrt(np.maximum(image, 0)) * 0.55 * _grain(_stream(seed, 104), shape)
    image = image + 1.5 * _grain(_stream(seed, 105), shape)
    quantised = np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)
    return quantised, sorted(truth, key=lambda cell: (cell.y, cell.x))


def _place_cells(
    rng: np.random.Generator, shape: tuple[int, int], count: int, diameter_px: float, clumping: float
) -> list[tuple[float, float, float]]:
    """(x, y, diameter) of cells, a share of them beside an earlier one, at least 0.68 diameters apart."""
    height, width = shape
    rim = 0.3 * diameter_px
    placed: list[tuple[float, float, float]] = []
    for _ in range(count):
        diameter = diameter_px * (0.8 + 0.2 * (rng.random() + rng.random()))
        for _ in range(1000):
            if placed and rng.random() < clumping:
                hx, hy, host = placed[int(rng.integers(len(placed)))]
                (dx, dy), far = _direction(rng.random()), (host + diameter) / 2 * _between(rng, 0.72, 1.0)
                x, y, apart = hx + far * dx, hy + far * dy, 0.68
            else:
                x, y, apart = _between(rng, rim, width - rim), _between(rng, rim, height - rim), 1.15
            if not (rim <= x <= width - rim and rim <= y <= height - rim):
                continue
            if all(
                math.sqrt((x - ox) * (x - ox) + (y - oy) * (y - oy)) >= apart * (diameter + other) / 2
                for ox, oy, other in placed
            ):
                placed.append((x, y, diameter))
                break
        else:
            raise ValueError(f"no room for {count} cells of {diameter_px:g} px; ask for fewer")
    return placed


def _cell_outline(rng: np.random.Generator, x: float, y: float, diameter: float) -> Polygon:
    """A closed curve about (x, y): an ellipse bent by three slow waves."""
    stretch = _between(rng, 0.86, 1.0)
    spin, phases = rng.random(), [rng.random() for _ in range(3)]
    sizes = (_between(rng, 0, 0.07), _between(rng, 0, 0.06), _between(rng, 0, 0.04))
    ax, ay = _direction(spin)
    corners = []
    for k in range(32):
        dx, dy = _direction(k / 32)
        radius = diameter / 2
        for wave, (size, phase) in enumerate(zip(sizes, phases, strict=True), start=2):
            radius += diameter / 2 * size * _direction(wave * k / 32 + phase)[0]
        along, across = radius * dx / stretch, radius * dy * stretch
        corners.append((x + along * ax - across * ay, y + along * ay + across * ax))
    return Polygon(corners)


# ---- files -------------------------------------------------------------------------------------------


def write_dryland(folder: Path, seed: int = DRYLAND_SEED) -> None:
    """Write dryland.tif, its crowns (dryland_shrubs.geojson) and their centres (dryland_shrubs.csv)."""
    image, shrubs = render_dryland(seed)
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": image.shape[0],
        "height": image.shape[1],
        "width": image.shape[2],
        "crs": CRS,
        "transform": Affine(GSD_M, 0, ORIGIN[0], 0, -GSD_M, ORIGIN[1]),
        "nodata": NODATA,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "predictor": 2,
        "zlevel": 9,
        "photometric": "RGB",
        "ALPHA": "NO",  # else GDAL takes a fourth band for alpha
    }
    with rasterio.open(folder / "dryland.tif", "w", **profile) as raster:
        raster.write(image)
        raster.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined)
        raster.descriptions = ("red", "green", "blue", "nir")

    features = []
    for number, shrub in enumerate(shrubs, start=1):
        ring = shapely.geometry.polygon.orient(
            shrub.crown, -1
        ).exterior.coords  # y down: so it is right on a map
        eastings = [ORIGIN[0] + GSD_M * x for x, _ in ring]
        northings = [ORIGIN[1] - GSD_M * y for _, y in ring]
        lon, lat = rasterio.warp.transform(CRS, "EPSG:4326", eastings, northings)
        rings = [[[round(x, 8), round(y, 8)] for x, y in zip(lon, lat, strict=True)]]
        feature = {
            "type": "Feature",
            "id": number,
            "properties": {
                "id": number,
                "label": "shrub",
                "diameter_m": round(shrub.diameter_m, 3),
                "touching": shrub.touching,
            },
            "geometry": {"type": "Polygon", "coordinates": rings},
        }
        features.append(json.dumps(feature))
    text = '{"type": "FeatureCollection", "features": [\n' + ",\n".join(features) + "\n]}\n"
    (folder / "dryland_shrubs.geojson").write_text(text, encoding="utf-8", newline="\n")
    rows = [("dryland.tif", f"{s.x:.3f}", f"{s.y:.3f}", "shrub", f"{s.diameter_m:.3f}") for s in shrubs]
    _write_table(folder / "dryland_shrubs.csv", ("source", "x", "y", "label", "diameter_m"), rows)


def write_cells(folder: Path, seed: int = CELLS_SEED) -> None:
    """Write cells.png and the centres of its cells (cells.csv)."""
    image, cells = render_cells(seed)
    height, width = image.shape
    profile = {"driver": "PNG", "dtype": "uint8", "count": 1, "height": height, "width": width}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a microscope picture has no place on Earth
        with rasterio.open(folder / "cells.png", "w", **profile) as picture:
            picture.write(image, 1)
    rows = [(f"{c.x:.3f}", f"{c.y:.3f}", f"{c.diameter_px:.3f}") for c in cells]
    _write_table(folder / "cells.csv", ("x", "y", "diameter_px"), rows)


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(description="Render the sample scenes with exact truth.")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: this one)")
    parser.add_argument("--seed", type=int, help="another scene than the committed one")
    parser.add_argument("--only", choices=("dryland", "cells"), help="render this one only")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only != "cells":
        write_dryland(options.out, DRYLAND_SEED if options.seed is None else options.seed)
    if options.only != "dryland":
        write_cells(options.out, CELLS_SEED if options.seed is None else options.seed)


if __name__ == "__main__":
    main()

"""Explains the answer of a classifier at a place: what `ecodetect explain` does.

Three views of one window: how the score falls where it is covered (Zeiler & Fergus 2014, doi:10.1007/
978-3-319-10590-1_53), where features support the answer (Grad-CAM; see `networks.explanation`), and which
pictures are the most similar for the network. None of them is a proof: they show what to check.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from ecodetect.annotations import class_folders
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.bundle.value_survey import seen_unit
from ecodetect.bundle.values import ValueUnit, remarks
from ecodetect.classification.answering import BACKGROUND, Member, Sight, open_classifier
from ecodetect.classification.folders import beside, images_of
from ecodetect.detectors import window_networks
from ecodetect.detectors.window_networks import options_of
from ecodetect.errors import UserError, already_there
from ecodetect.extras import TIMM
from ecodetect.grid import Floats, Window, describe_crs, transformed
from ecodetect.notes import Note
from ecodetect.pictures import files as picture_files
from ecodetect.pictures.colours import Pixels
from ecodetect.pictures.explanation import Heat, draw_explanation
from ecodetect.pictures.thumbnails import Thumbnail
from ecodetect.raster.finding import expand
from ecodetect.raster.options import RasterOptions
from ecodetect.raster.reading import Raster

_COVERED = 1 / 6  # of the window's side: width of the covering square
_SHOWN = 2  # windows along a side of the shown part of a chip
_MOST_WINDOWS = 4  # along a side of the largest raster that counts as a picture of one individual
_EXAMPLES = 8
_SCORES = 7  # listed answers
_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class Example:
    """A picture similar to the explained one.

    label : its class, "" where no folder says it.  similarity : cosine of the pooled features, -1 to 1.
    """

    path: Path
    label: str
    similarity: float


@dataclass(frozen=True, eq=False, slots=True)
class Explanation:
    """An explanation of an answer.

    place : the image and where, in words.  model : name of the classifier.
    scores : answers with calibrated scores, the first one first.
    image : (S, S, 3), the shown part of the network's input.
    fall : (S, S), fall of the first answer's score when a pixel is covered, averaged over the squares that
        cover it; below 0 the score rises.
    activation : (S, S), Grad-CAM of the first answer, 0 to 1; None where there are no gradients.
    examples : the most similar pictures, the most similar first.
    options : how rasters were opened.
    notes : about the raster's values, and what is left out.
    """

    place: str
    model: str
    scores: tuple[tuple[str, float], ...]
    image: Pixels
    fall: NDArray[np.float32]
    activation: NDArray[np.float32] | None
    examples: tuple[Example, ...]
    options: RasterOptions
    notes: tuple[Note, ...] = ()

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Draw it into a PNG or JPEG."""
        answer = self.scores[0][0]
        low, high = float(self.fall.min()), float(self.fall.max())
        heats = [
            Heat(
                self.fall, "Covered, the score falls by", f"rises {-low:.2g}", f"falls {max(0.0, high):.2g}"
            ),
        ]
        if self.activation is not None:
            heats.append(Heat(self.activation, f"Features that speak for {answer}", None, "most"))
        shown = [
            Thumbnail(
                each.path, (each.label or each.path.name, f"similarity {each.similarity:.3f}", each.path.name)
            )
            for each in self.examples
        ]
        draw_explanation(
            path,
            image=self.image,
            title=f"{answer}: {self.scores[0][1]:.3f}",
            facts=f"{self.model} on {self.place}",
            scores=self.scores[:_SCORES],
            heats=heats,
            examples=shown,
            options=self.options,
        )


def explain(
    image: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    at: tuple[float, float] | None = None,
    crs: str | None = None,
    examples: str | os.PathLike[str] | None = None,
    bands: str | None = None,
    gsd_m: float | None = None,
    nodata: float | None = None,
    values: ValueUnit | None = None,
    device: str = "auto",
    allow_vrt: bool = False,
) -> Explanation:
    """Explain the answer of a classifier at one place.

    Parameters
    ----------
    image : str or path-like
        A raster, or a picture of one individual.
    model : str or path-like
        A trained classifier.
    at : pair of float, optional
        The place: x, y in pixels of the raster (continuous, from its outer corner), or in `crs`. The default
        for a picture of one individual is its middle.
    crs : str, optional
        The CRS of `at`: "EPSG:4326" for longitude and latitude.
    examples : str or path-like, optional
        A folder of pictures, by class or not; the most similar are shown.
    bands, gsd_m, nodata, allow_vrt : see `open_raster`.
    values : the values that count as black and white in the raster; None: inferred from its values.

    Raises
    ------
    UserError
        In one sentence: a model that isn't a classifier, a place outside the raster, missing bands.
    """
    member = open_classifier([model], device=device).members[0]
    asked = AnnotationOptions(bands=bands, gsd_m=gsd_m, nodata=nodata, allow_vrt=allow_vrt, values=values)
    with asked.opened(image) as raster:
        if at is None:
            _check_picture(raster, member)
            seen, there = images_of(member, [(Path(image), "")], asked)
            place = raster.name
        else:
            xy = _pixel(raster, at, crs)
            ((_, seen, there),) = Sight.of(member, raster, values).windows(raster, xy)
            place = f"{raster.name}, x {xy[0, 0]:.1f}, y {xy[0, 1]:.1f} px"
        choice, found = seen_unit(member.card, raster, stated=values)
        notes = (*remarks(raster.name, member.card, choice, found), *_left_out(member))
    if not there[0]:
        raise UserError(f"{place} shows nothing to explain: no pixel around it holds data.")
    return replace(_explained(member, seen[0], place, Path(image), examples, asked), notes=notes)


def _left_out(member: Member) -> list[Note]:
    """What is to be said where there are no gradients: without torch, or where a learner decides."""
    shape = options_of(member.card)
    needed = ("torch", "timm") if shape.network.kind.startswith(TIMM) else ("torch",)
    missing = [name for name in needed if find_spec(name) is None]
    if shape.learner is not None:
        why = "a learner decides, through which no gradient leads back to pixels"
    elif missing:
        why = f'they need {missing[0]}, which isn\'t installed: pip install "ecodetect[train]"'
    else:
        return []
    return [
        Note("no-grad-cam", f"the features that speak for the answer (Grad-CAM) are left out, because {why}.")
    ]


def _check_picture(raster: Raster, member: Member) -> None:
    """Raise UserError for a raster too large to be a picture of one individual."""
    shape = options_of(member.card)
    window = max(shape.network.window, shape.typical_px) * member.card.unit_per_px
    if member.card.gsd_m is not None and raster.grid.gsd is not None:
        window = float(window / max(raster.grid.gsd))
    if max(raster.grid.width, raster.grid.height) > _MOST_WINDOWS * window:
        raise UserError(
            f"{raster.name} has {raster.grid.width} x {raster.grid.height} px, more than a picture of one"
            " individual; name the place to explain (X,Y).",
            parameter="at",
        )


def _pixel(raster: Raster, at: tuple[float, float], crs: str | None) -> Floats:
    """A place in pixels of a raster, (1, 2); raises UserError for one outside, or in no CRS."""
    xy = np.array([at], np.float64)
    grid = raster.grid
    if crs is not None:
        try:
            stated = CRS.from_user_input(crs)
        except CRSError as error:
            raise UserError(f"{crs} is not a CRS; use for example EPSG:4326.", parameter="crs") from error
        if grid.crs is None:
            raise UserError(
                f"{raster.name} has no CRS; give the place in its pixels, without a CRS.", parameter="crs"
            )
        xy = grid.to_pixel(transformed(xy, stated, grid.crs))
    if not (np.isfinite(xy).all() and (xy >= 0).all() and (xy <= (grid.width, grid.height)).all()):
        where = f"{at[0]:.10g},{at[1]:.10g}" + ("" if crs is None else f" in {describe_crs(stated)}")
        raise UserError(
            f"{where} lies outside {raster.name}, which has {grid.width} x {grid.height} px; a place is in"
            " pixels unless its CRS is stated.",
            parameter=("at", "crs"),
        )
    return xy


def _explained(
    member: Member,
    seen: NDArray[np.float32],
    place: str,
    own: Path,
    examples: str | os.PathLike[str] | None,
    asked: AnnotationOptions,
) -> Explanation:
    likely = member.probability(seen[None])[0]
    order = np.argsort(-likely, kind="stable")
    answer = int(order[0])
    shown = _shown(member)
    fall = np.zeros(seen.shape[1:], np.float32)
    rows = slice(shown.y, shown.bottom), slice(shown.x, shown.right)
    fall[rows] = _falls(member, seen, answer, shown)
    spoken = None
    if not _left_out(member):
        spoken = window_networks.activation(member.bundle, seen, _output(member, answer))
        spoken = spoken[: seen.shape[1], : seen.shape[2]][rows]
    return Explanation(
        place=place,
        model=member.card.name,
        scores=tuple((member.answers[k], float(likely[k])) for k in order.tolist()),
        image=_pictured(member, seen)[rows],
        fall=fall[rows],
        activation=spoken,
        examples=() if examples is None else tuple(_similar(member, seen, Path(examples), own, asked)),
        options=asked,
    )


def _shown(member: Member) -> Window:
    """The shown part of the image: all of a window, the middle of a chip."""
    window = _SHOWN * options_of(member.card).network.window
    if options_of(member.card).patches or window >= member.side:
        return Window(0, 0, member.side, member.side)
    start = (member.side - window) // 2
    return Window(start, start, window, window)


def _output(member: Member, answer: int) -> int:
    """Number of an answer's output: the network's first is the background, where there is one."""
    if options_of(member.card).patches:
        return answer
    return 0 if member.answers[answer] == BACKGROUND else answer + 1


def _falls(member: Member, seen: NDArray[np.float32], answer: int, shown: Window) -> NDArray[np.float32]:
    """Fall of a score where squares are covered with the mean of the window; (H, W) of `shown`."""
    rows = slice(shown.y, shown.bottom), slice(shown.x, shown.right)
    mean = seen[:, rows[0], rows[1]].mean(axis=(1, 2))
    score = float(member.probability(seen[None])[0, answer])
    total, times = np.zeros((2, shown.height, shown.width), np.float32)
    side = max(2, round(shown.width * _COVERED))
    places = [(y, x) for y in _starts(shown.height, side) for x in _starts(shown.width, side)]
    for start in range(0, len(places), _AT_ONCE):
        some = places[start : start + _AT_ONCE]
        covered = np.repeat(seen[None], len(some), axis=0)
        for image, (y, x) in zip(covered, some, strict=True):
            down, across = shown.y + y, shown.x + x
            image[:, down : down + side, across : across + side] = mean[:, None, None]
        fallen = score - member.probability(covered)[:, answer]
        for (y, x), each in zip(some, fallen, strict=True):
            total[y : y + side, x : x + side] += each
            times[y : y + side, x : x + side] += 1
    found: NDArray[np.float32] = total / times
    return found


def _starts(length: int, side: int) -> list[int]:
    """Start positions of squares along a length, each overlapping half of the next."""
    count = max(2, -(-2 * (length - side) // side) + 1)
    return [round(each) for each in np.linspace(0, length - side, count).tolist()]


def _pictured(member: Member, seen: NDArray[np.float32]) -> Pixels:
    """The network's input as a picture, (H, W, 3): darkest 0.5 % black, brightest 0.5 % white, hues kept."""
    bands, scaling = member.card.bands, member.card.scaling
    wanted = ("red", "green", "blue")
    chosen = [bands.index(name) for name in wanted] if set(wanted) <= set(bands) else [0, 0, 0]
    if not set(wanted) <= set(bands) and len(bands) >= 3:
        chosen = [0, 1, 2]
    offset = np.asarray(scaling.offset or (0.0,) * len(bands)) * np.ones(len(bands))
    span = np.asarray(scaling.span or (1.0,) * len(bands)) * np.ones(len(bands))
    values = np.stack([seen[band] * span[band] + offset[band] for band in chosen], axis=2)
    low, high = np.percentile(values, (0.5, 99.5))
    share = (values - low) / ((high - low) or 1.0)
    return np.asarray(np.rint(255 * np.clip(share, 0, 1)), np.uint8)


def _similar(
    member: Member, seen: NDArray[np.float32], folder: Path, own: Path, asked: AnnotationOptions
) -> Sequence[Example]:
    """The pictures of a folder with the most similar features, without the picture itself."""
    if not folder.is_dir():
        raise UserError(
            f"Examples are taken from a folder of pictures; {folder} is not one.", parameter="examples"
        )
    by_class = class_folders.pictures(folder)
    named = [(path, name) for name, paths in by_class.items() for path in paths]
    named = named or [(Path(path), "") for path in expand([folder])]
    named = [(path, name) for path, name in named if path.resolve() != own.resolve()]
    mine = _direction(window_networks.pooled(member.bundle, member.network.device, seen[None]))[0]
    similarity = np.array(
        [float(each) for part in _features(member, named, asked) for each in _direction(part) @ mine]
    )
    best = np.argsort(-similarity, kind="stable")[:_EXAMPLES]
    return [Example(named[row][0], named[row][1], float(similarity[row])) for row in best.tolist()]


def _features(
    member: Member, named: Sequence[tuple[Path, str]], asked: AnnotationOptions
) -> Iterator[NDArray[np.float32]]:
    companions = beside([path for path, _ in named], asked)
    for start in range(0, len(named), _AT_ONCE):
        images, _ = images_of(member, named[start : start + _AT_ONCE], asked, companions)
        yield window_networks.pooled(member.bundle, member.network.device, images)


def _direction(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Features (n, C) of length 1."""
    wide = features.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12))


def writable(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise UserError, before work starts, where the picture can't be written."""
    picture_files.writable(path)
    if Path(path).exists() and not overwrite:
        raise already_there(path)

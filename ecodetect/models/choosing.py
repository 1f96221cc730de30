"""Finds a model, shipped or in a file, and tells whether it fits a raster."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from ecodetect.bundle import file as bundle
from ecodetect.bundle.card import FINEST, Card
from ecodetect.bundle.file import Bundle
from ecodetect.detectors import table as detectors
from ecodetect.detectors.protocol import Detector, Scene
from ecodetect.errors import UserError
from ecodetect.raster.bands import lacking, listed, stand_ins
from ecodetect.runtime import onnx_file

SUFFIXES = (".safetensors", ".onnx")
FOLDER = Path(__file__).parent
# How much coarser than its coarsest GSD a raster may be. A card without a range allows twice its GSD: beyond
# that an object of 4 px has less than 2 px.
_COARSER = 1.05
_COARSER_UNSTATED = 2.0


def known() -> dict[str, Card]:
    """The shipped models, by name; only their cards are read."""
    files = sorted(FOLDER.glob("*.safetensors"))
    return {path.stem: _card(path, path.stat().st_mtime_ns, path.stat().st_size) for path in files}


@lru_cache
def _card(path: Path, modified_ns: int, size: int) -> Card:
    """The card of a file in this state; cached, because each raster of a folder needs it."""
    return bundle.read_card(path)


def resolve(name: str | os.PathLike[str]) -> Path | None:
    """The file of a model; None if `name` is that of a detector.

    A name with a path separator or the suffix of a model is a file; any other is a shipped model, else a
    detector.
    Raises UserError where there is none of these.
    """
    text = os.fspath(name)
    if any(mark and mark in text for mark in (os.sep, os.altsep, "/")) or text.lower().endswith(SUFFIXES):
        path = Path(text)
        if not path.is_file():
            more = "; models are read from files on this machine: download it" if "://" in text else ""
            raise UserError(f"There is no model {text}{more}.")
        return path
    inside = shipped(text)
    if inside is not None:
        return inside
    table = sorted({*known(), *detectors.known()})
    if text in table:
        return None
    near = get_close_matches(text, table, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"No model or detector named '{text}'; {hint}Known: {', '.join(table)}.")


def shipped(name: str) -> Path | None:
    """The file of a shipped model, by name; None if there is none."""
    inside = FOLDER / f"{name}.safetensors"
    return inside if inside.is_file() and inside.parent == FOLDER else None


def opened(name: str | os.PathLike[str]) -> Bundle | None:
    """The bundle that `name` means, None for a detector without one; read once for many rasters."""
    path = resolve(name)
    if path is None:
        return None
    state = path.stat()
    return _read(path, state.st_size, state.st_mtime_ns)


def card(name: str | os.PathLike[str]) -> Card:
    """The card of a model; raises UserError for a detector without one."""
    path = resolve(name)
    if path is None:
        raise UserError(
            f"{name} is a kind of detector; name a trained model, or its file.", parameter="model"
        )
    return read_card(path)


def read_card(path: Path) -> Card:
    """The card of a model's file."""
    found = onnx_file.read_card(path) if _is_onnx(path) else bundle.read_card(path)
    detectors.check_card(found)
    return found


def read(path: Path) -> Bundle:
    """A model's file, with a card that fits its detector.

    Raises BundleError, in one sentence, if it is damaged or isn't a model.
    """
    if _is_onnx(path):
        found: Bundle = onnx_file.read(path)
    else:
        # The card first: its damage is reported before hundreds of megabytes are read.
        read_card(path)
        found = bundle.read(path)
    detectors.check_card(found.card)
    return found


def title(name: str | os.PathLike[str]) -> str:
    """A model's title: the name on its card, or the detector's name."""
    path = resolve(name)
    return os.fspath(name) if path is None else read_card(path).name


@lru_cache(maxsize=4)
def _read(path: Path, size: int, mtime_ns: int) -> Bundle:
    """A bundle as it was when it had this size and time."""
    return read(path)


def _is_onnx(path: Path) -> bool:
    return path.suffix.lower() == ".onnx"


def build(
    name: str | os.PathLike[str],
    scene: Scene,
    options: Mapping[str, str] | None = None,
    *,
    source: str = "the raster",
    device: str = "auto",
    threads: int | None = None,
) -> Detector:
    """The detector that `name` means, a model or a detector without one, for a scene.

    source : what the raster is called in messages.
    Raises UserError, in one sentence, where they don't fit together.
    """
    found = opened(name)
    if found is None:
        return detectors.build(os.fspath(name), scene, options)
    why = misfit(found.card, scene, source=source)
    if why is not None:
        raise why
    if found.card.detector not in detectors.known():
        raise UserError(
            f"The model '{found.card.name}' is of a detector '{found.card.detector}', which isn't installed."
        )
    return detectors.build(found.card.detector, scene, options, bundle=found, device=device, threads=threads)


def misfit(card: Card, scene: Scene, *, source: str = "the raster") -> UserError | None:
    """Why a model can't be used on a raster, as the error to raise; None if it can. Reads no pixel."""
    who = f"The model '{card.name}'"
    if stand_ins(card.bands, scene.bands) is None:
        return UserError(
            f"{who} needs bands {', '.join(card.bands)}; {source} {lacking(card.bands, scene.bands)}",
            parameter="bands",
        )
    if card.gsd_m is None:
        return None
    here = scene.gsd_mean
    if here is None:
        works = f"{who} works at {_length(card.gsd_m)} per pixel"
        return UserError(f"{works}; that of {source} is unknown: state it.", parameter="gsd")
    coarsest = card.gsd_m * _COARSER_UNSTATED
    if card.gsd_range is not None:
        coarsest = card.gsd_m / card.unit_per_px * card.gsd_range[1] * _COARSER
    if here < card.gsd_m / FINEST:
        return UserError(
            f"{who} works at {_length(card.gsd_m)} per pixel; {source} is a micrograph of {_length(here)}."
        )
    if here > coarsest:
        return UserError(
            f"{who} works at {_length(card.gsd_m)} per pixel and is good for rasters of up to "
            f"{_length(coarsest)}; {source} has {_length(here)}."
        )
    return None


def fitting(scene: Scene) -> tuple[str | None, str]:
    """The only shipped model that a raster fits, and why; None if there is none, or several.

    A model is chosen automatically only for suitable rasters: with the bands by name, and with a known GSD
    within the card's range. (By name, it may be used for more: grey for colours, a finer raster.) Models
    without a GSD are never chosen automatically. Among fitting models with the same classes, the one with all
    bands of the others and more is chosen.
    """
    fits: dict[str, Card] = {}
    misses: dict[str, str] = {}
    for name, card in known().items():
        why = _not_meant(card, scene)
        if why is None:
            fits[name] = card
        else:
            misses[name] = f"'{name}' {why}"
    for name in [name for name, card in fits.items() if _is_surpassed(card, fits)]:
        misses[name] = f"'{name}' sees fewer bands"
        del fits[name]
    if len(fits) == 1:
        ((name, card),) = fits.items()
        gsd = "" if scene.gsd is None else f" at {_length(max(scene.gsd))} per pixel"
        fits_it = f"'{name}' is the only model that fits it. {card.description}"
        return name, f"{', '.join(card.bands)}{gsd}, and {fits_it}"
    if not fits and not misses:
        return None, "No trained model comes with this version."
    others = "; ".join(misses.values())
    if fits:
        return None, f"Several models fit: {', '.join(fits)}." + (
            f" Others don't: {others}." if others else ""
        )
    return None, f"No model fits: {others}."


def _is_surpassed(card: Card, fits: Mapping[str, Card]) -> bool:
    return any(
        card.classes == other.classes and set(card.bands) < set(other.bands) for other in fits.values()
    )


def unmeant(card: Card, scene: Scene) -> str | None:
    """Why a usable model isn't suitable for a raster, as the rest of a sentence; None if it is.

    A model for pictures of unknown scale is suitable only for such pictures; for a raster of known scale the
    text states the size of objects that it would find.
    """
    if card.gsd_m is not None:
        return _not_meant(card, scene)
    scale = scene.gsd_mean
    if scale is None:
        return None
    if card.diameter_range is None:
        return "is for pictures whose scale is unknown"
    low, high = card.diameter_range
    return (
        f"has learned {', '.join(card.classes)} {low:.3g} to {high:.3g} px wide, so it makes sense only if"
        f" they are {_length(low * scale)} to {_length(high * scale)} wide here"
    )


def _not_meant(card: Card, scene: Scene) -> str | None:
    """Why a model isn't suitable for a raster, as the rest of a sentence; None if it is."""
    if not set(card.bands) <= set(scene.bands):
        return f"needs {', '.join(card.bands)} (the raster has {listed(scene.bands)})"
    if card.gsd_m is None:
        return "works at any size of pixels, so it is never chosen unasked"
    here = scene.gsd_mean
    if here is None:
        return f"works at {_length(card.gsd_m)} per pixel (the raster doesn't say; state its pixel size)"
    low, high = card.gsd_m / _COARSER_UNSTATED, card.gsd_m * _COARSER_UNSTATED
    if card.gsd_range is not None:
        low, high = (card.gsd_m / card.unit_per_px * bound for bound in card.gsd_range)
    if not low / _COARSER <= here <= high * _COARSER:
        return f"is meant for {_length(low)} to {_length(high)} per pixel (the raster has {_length(here)})"
    return None


def _length(metres: float) -> str:
    if metres < 1e-3:
        return f"{metres * 1e6:.3g} µm"
    return f"{metres:.3g} m" if metres >= 1 else f"{metres * 100:.3g} cm"

"""The detectors: a table of names, each a file in this folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from inspect import cleandoc
from typing import Any

from ecodetect.bundle.card import Card
from ecodetect.bundle.file import Bundle
from ecodetect.detectors.learned import Kind, NetworkKind
from ecodetect.detectors.protocol import Detector, Plain, Scene, read_options
from ecodetect.errors import BundleError, UserError

# name -> `module:what it declares`; modules are imported when used.
TABLE: dict[str, str] = {
    "blobs": "ecodetect.detectors.blobs:KIND",
    "faster_rcnn": "ecodetect.detectors.torchvision_boxes:FASTER_RCNN",
    "fcos": "ecodetect.detectors.torchvision_boxes:FCOS",
    "heatmap": "ecodetect.detectors.heatmap:KIND",
    "mask_rcnn": "ecodetect.detectors.mask_rcnn:KIND",
    "obia": "ecodetect.detectors.obia:KIND",
    "proposals": "ecodetect.detectors.proposals:KIND",
    "retinanet": "ecodetect.detectors.torchvision_boxes:RETINANET",
    "selective_search": "ecodetect.detectors.selective_search:KIND",
    "sliding_window": "ecodetect.detectors.sliding_window:KIND",
    "ssd": "ecodetect.detectors.torchvision_boxes:SSD",
    "threshold": "ecodetect.detectors.threshold:KIND",
    "yolo": "ecodetect.detectors.yolo:KIND",
}


def known() -> dict[str, str]:
    """Names of all detectors: built in, or installed under the entry point `ecodetect.detectors`."""
    return {**_installed(), **TABLE}


@cache  # searching all installed packages takes longer than opening a small raster
def _installed() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group="ecodetect.detectors")}


def declared(name: str) -> Plain | Kind:
    """What a detector declares.

    Raises UserError for an unknown name, naming the nearest, and for an installed one without a declaration.
    """
    table = known()
    if name not in table:
        near = get_close_matches(name, table, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"No detector named '{name}'; {hint}Known: {', '.join(sorted(table))}.")
    module, _, attribute = table[name].partition(":")
    found = vars(import_module(module)).get(attribute or "KIND")
    if not isinstance(found, Plain | Kind):
        raise UserError(
            f"The detector '{name}' that is installed as {table[name]} declares no KIND (a Plain, Kind or"
            " NetworkKind); ask who wrote it."
        )
    return found


def learned(name: str) -> Kind:
    """What a detector that needs training declares; raises UserError for others."""
    found = declared(name)
    if not isinstance(found, Kind):
        raise UserError(f"'{name}' has nothing to learn; train a detector such as heatmap.")
    return found


def network_kind(name: str) -> NetworkKind:
    """What a detector that trains a network declares; raises UserError for others."""
    found = learned(name)
    if not isinstance(found, NetworkKind):
        raise UserError(f"'{name}' trains no network.")
    return found


@dataclass(frozen=True, slots=True)
class Description:
    """A detector in words.

    purpose : one sentence.
    options : option name -> (default, meaning), as the docstring of its `Options` has them.
    """

    purpose: str
    options: Mapping[str, tuple[str, str]]


def describe(name: str) -> Description:
    """A detector's purpose and options.  Raises UserError for an unknown name."""
    found = declared(name)
    purpose = cleandoc(found.purpose).split("\n\n")[0].replace("\n", " ")
    documented = cleandoc(found.options.__doc__ or "")
    meanings = {
        option: meaning
        for names, meaning in re.findall(r"^(\w+(?:, \w+)*) : (.*(?:\n {2,}.*)*)", documented, re.MULTILINE)
        for option in names.split(", ")
    }
    options = {
        field.name: (_typed(field.default), " ".join(meanings.get(field.name, "").split()))
        for field in fields(found.options)
    }
    return Description(purpose, options)


def _typed(value: Any) -> str:
    """A default as a user types it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def check_card(card: Card) -> None:
    """Raise BundleError, in one sentence, where a model's card doesn't fit its detector.

    Each detector checks its options (`CardOptions`); a detector that isn't installed can't.
    """
    if card.detector not in known():
        return
    if not is_learned(card.detector):
        raise BundleError(f"The card of '{card.name}' is damaged ({card.detector} has nothing to learn).")
    learned(card.detector).options_of(card)


def unlearned() -> list[str]:
    """Names of the detectors that need no training."""
    return [name for name in known() if not is_learned(name)]


def is_learned(name: str) -> bool:
    """Whether a detector needs training, so that it can't be used without a bundle."""
    return isinstance(declared(name), Kind)


def with_score_map() -> list[str]:
    """Names of the detectors that have a map of scores."""
    return sorted(name for name in known() if declared(name).has_score_map)


def build(
    name: str,
    scene: Scene,
    options: Mapping[str, str] | None = None,
    *,
    bundle: Bundle | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> Detector:
    """The detector `name` for a scene, with options as `name=value` texts.

    bundle : the model of a learned detector.
    device, threads : where a network runs, and the number of CPU threads; None: all.
    Raises UserError for an unknown name, naming the nearest, for options it doesn't have, and for a learned
    one without a bundle.
    """
    found = declared(name)
    given = read_options(found.options, options or {}, name)
    if isinstance(found, Plain):
        return found.build(given, scene)
    if bundle is None:
        raise UserError(
            f"{name} has to be trained first; name a model trained with it, FILE.safetensors.",
            parameter="model",
        )
    return found.build(given, scene, bundle, device=device, threads=threads)

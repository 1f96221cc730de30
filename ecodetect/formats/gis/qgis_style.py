"""A style for QGIS (QML): outlines or markers, coloured by label where there are several, else by score.

A GeoPackage carries it inside, other files have it beside them as a .qml of the same name, which QGIS opens
with the layer. Every feature is drawn: those without a label or a score, added by hand, in white.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

from ecodetect.formats.labels.xml_writing import holdable
from ecodetect.layer import Steps

# Okabe and Ito's colours, which the colour-blind tell apart, without black: pictures are full of it.
LABEL_COLOURS = ("#e69f00", "#56b4e9", "#d55e00", "#f0e442", "#cc79a7", "#009e73", "#0072b2")
_SCORE_COLOURS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")  # viridis, low to high
_MOST_CLASSES = 50  # a longer legend is useless
_OURS = "<!-- written by ecodetect; a style saved by QGIS takes its place and is kept -->"
_NO_SCORE = -1.0  # stands for a missing score, which no range of scores holds


@dataclass(frozen=True, slots=True)
class Look:
    """How one kind of feature is drawn: its colour, the marker of a point, the line of an outline."""

    colour: str
    marker: str = "circle"
    line: str = "solid"
    is_filled: bool = False


@dataclass(frozen=True, slots=True)
class Category:
    """A value that features are told apart by: what the legend calls it, and how they are drawn."""

    value: str
    title: str
    look: Look


_BY_HAND = Look("#ffffff", "star")
# Told apart by shape too: who sees no colours sees a cross for what is wrong, a triangle for what is missing.
_ERRORS = {
    "true": Look("#56b4e9"),
    "false": Look("#d55e00", "cross2", "dot"),
    "missed": Look("#f0e442", "triangle", "dash"),
    "unjudged": Look("#bbbbbb", "square", "dash dot"),
}


def style(
    geometry_type: str, columns: Sequence[str], classes: Sequence[str], steps: Steps | None = None
) -> str:
    """The QML text of a layer of points or polygons.

    geometry_type : "Point" or "Polygon".  columns : names in the file.  classes : labels in their order.
    steps : of a layer whose polygons are filled by a number.
    """
    is_point = geometry_type == "Point"
    root = Element("qgis", version="3.22.0", styleCategories="Symbology")
    if steps is not None:
        looks = [Look(colour, is_filled=True) for colour in _SCORE_COLOURS]
        limits = [*pairwise(steps.limits)]
        texts = [(low, high, f"{low:.4g} to {high:.4g}") for low, high in limits]
        _add_ranges(
            root, f'coalesce("{steps.column}", -1)', [*texts, (-1.0, -1.0, "unknown")], [*looks, _BY_HAND]
        )
    elif "label" in columns and 1 < len(classes) <= _MOST_CLASSES:
        named = [Category(name, name, look) for name, look in zip(classes, _looks(classes), strict=True)]
        add_categories(root, "label", [*named, Category("", "other", _BY_HAND)], is_point=is_point)
    elif "score" in columns:
        fifths = [step / len(_SCORE_COLOURS) for step in range(len(_SCORE_COLOURS) + 1)]
        texts = [(low, high, f"{low:g} to {high:g}") for low, high in pairwise(fifths)]
        ranges = [*texts, (_NO_SCORE, _NO_SCORE, "no score")]
        looks = [*map(Look, _SCORE_COLOURS), _BY_HAND]
        _add_ranges(root, f'coalesce("score", {_NO_SCORE:g})', ranges, looks, is_point=is_point)
    else:
        renderer = SubElement(root, "renderer-v2", type="singleSymbol", enableorderby="0")
        _add_symbols(renderer, [Look(LABEL_COLOURS[0])], is_point=is_point)
    SubElement(root, "layerGeometryType").text = "0" if is_point else "2"
    return holdable(tostring(root, encoding="unicode"))


def add_categories(root: Element, value: str, categories: Sequence[Category], *, is_point: bool) -> None:
    """Tell features apart by a field or an expression; the empty value takes all others."""
    renderer = SubElement(root, "renderer-v2", type="categorizedSymbol", attr=value, enableorderby="0")
    listed = SubElement(renderer, "categories")
    for number, each in enumerate(categories):
        facts = {"value": each.value, "label": each.title, "type": "string"}
        SubElement(listed, "category", {"render": "true", "symbol": str(number), **facts})
    _add_symbols(renderer, [each.look for each in categories], is_point=is_point)


def _add_ranges(
    root: Element,
    value: str,
    ranges: Sequence[tuple[float, float, str]],
    looks: Sequence[Look],
    *,
    is_point: bool = False,
) -> None:
    """Tell features apart by the range, from, to and its text, in which an expression lies."""
    renderer = SubElement(
        root, "renderer-v2", type="graduatedSymbol", attr=value, graduatedMethod="GraduatedColor"
    )
    listed = SubElement(renderer, "ranges")
    for number, (low, high, label) in enumerate(ranges):
        limits = {"lower": f"{low:.15f}", "upper": f"{high:.15f}", "label": label}
        SubElement(listed, "range", {"render": "true", "symbol": str(number), **limits})
    _add_symbols(renderer, looks, is_point=is_point)


def write_beside(path: Path, qml: str) -> None:
    """Write a style as a .qml beside the layer `path`."""
    path.with_suffix(".qml").write_text(f"{_OURS}\n{qml}\n", encoding="utf-8", newline="\n")


def is_ours(path: Path) -> bool:
    """Whether a .qml is one that `write_beside` wrote, and not the one a user has saved."""
    with path.open("rb") as file:
        return file.read(len(_OURS)) == _OURS.encode()


def _looks(classes: Sequence[str]) -> list[Look]:
    if set(classes) <= set(_ERRORS):
        return [_ERRORS[name] for name in classes]
    return [Look(LABEL_COLOURS[number % len(LABEL_COLOURS)]) for number in range(len(classes))]


def _add_symbols(renderer: Element, looks: Iterable[Look], *, is_point: bool) -> None:
    symbols = SubElement(renderer, "symbols")
    for number, look in enumerate(looks):
        symbol = SubElement(
            symbols, "symbol", name=str(number), type="marker" if is_point else "fill", alpha="1"
        )
        rgba = ",".join(str(int(look.colour[at : at + 2], 16)) for at in (1, 3, 5)) + ",255"
        if is_point:
            kind = "SimpleMarker"
            # A cross has no inside: its lines are its outline.
            is_line = look.marker == "cross2"
            options = {
                "name": look.marker,
                "color": rgba,
                "outline_color": rgba if is_line else "0,0,0,255",
                "outline_width": "0.8" if is_line else "0.2",
                "size": "2.4" if look.marker == "circle" else "3",
                "size_unit": "MM",
            }
        elif look.is_filled:
            kind = "SimpleFill"
            options = {
                "color": rgba.removesuffix("255") + "170",
                "outline_color": "80,80,80,255",
                "outline_width": "0.1",
                "outline_width_unit": "MM",
            }
        else:
            # A line as the only layer of a fill: the outline, with the picture seen through it.
            kind = "SimpleLine"
            options = {
                "line_color": rgba,
                "line_style": look.line,
                "line_width": "0.5",
                "line_width_unit": "MM",
            }
        layer = SubElement(symbol, "layer", {"class": kind, "enabled": "1", "locked": "0", "pass": "0"})
        values = SubElement(layer, "Option", type="Map")
        for name, value in options.items():
            SubElement(values, "Option", name=name, type="QString", value=value)

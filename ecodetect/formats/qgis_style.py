"""A style for QGIS (QML): outlines or markers, coloured by label where there are several, else by score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from xml.etree.ElementTree import Element, SubElement, tostring

# Okabe and Ito's colours, which the colour-blind tell apart, without black: pictures are full of it.
LABEL_COLOURS = ("#e69f00", "#56b4e9", "#d55e00", "#f0e442", "#cc79a7", "#009e73", "#0072b2")
_SCORE_COLOURS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")  # viridis, low to high
_MOST_CLASSES = 50  # a legend longer than this helps nobody


def style(geometry_type: str, columns: Sequence[str], classes: Sequence[str]) -> str:
    """The QML text of a layer of points or polygons.

    geometry_type : "Point" or "Polygon".  columns : names in the file.  classes : labels in their order.
    """
    is_point = geometry_type == "Point"
    root = Element("qgis", version="3.28.0", styleCategories="Symbology")
    if "label" in columns and 1 < len(classes) <= _MOST_CLASSES:
        renderer = SubElement(root, "renderer-v2", type="categorizedSymbol", attr="label", enableorderby="0")
        categories = SubElement(renderer, "categories")
        for number, name in enumerate([*classes, ""]):
            category = {"value": name, "label": name or "other", "type": "string" if name else "NULL"}
            SubElement(categories, "category", {"render": "true", "symbol": str(number), **category})
        colours = [LABEL_COLOURS[number % len(LABEL_COLOURS)] for number in range(len(classes))] + ["#ffffff"]
    elif "score" in columns:
        renderer = SubElement(
            root, "renderer-v2", type="graduatedSymbol", attr="score", graduatedMethod="GraduatedColor"
        )
        ranges = SubElement(renderer, "ranges")
        steps = [step / len(_SCORE_COLOURS) for step in range(len(_SCORE_COLOURS) + 1)]
        for number, (low, high) in enumerate(pairwise(steps)):
            limits = {"lower": f"{low:.15f}", "upper": f"{high:.15f}", "label": f"{low:g} to {high:g}"}
            SubElement(ranges, "range", {"render": "true", "symbol": str(number), **limits})
        colours = list(_SCORE_COLOURS)
    else:
        renderer = SubElement(root, "renderer-v2", type="singleSymbol", enableorderby="0")
        colours = list(LABEL_COLOURS[:1])
    _add_symbols(renderer, colours, is_point=is_point)
    SubElement(root, "layerGeometryType").text = "0" if is_point else "2"
    return tostring(root, encoding="unicode")


def _add_symbols(renderer: Element, colours: Iterable[str], *, is_point: bool) -> None:
    symbols = SubElement(renderer, "symbols")
    for number, colour in enumerate(colours):
        symbol = SubElement(
            symbols, "symbol", name=str(number), type="marker" if is_point else "fill", alpha="1"
        )
        rgba = ",".join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5)) + ",255"
        if is_point:
            kind = "SimpleMarker"
            options = {
                "name": "circle",
                "color": rgba,
                "outline_color": "0,0,0,255",
                "outline_width": "0.2",
                "size": "2.4",
                "size_unit": "MM",
            }
        else:
            # A line as the only layer of a fill: the outline, with the picture seen through it.
            kind = "SimpleLine"
            options = {
                "line_color": rgba,
                "line_style": "solid",
                "line_width": "0.5",
                "line_width_unit": "MM",
            }
        layer = SubElement(symbol, "layer", {"class": kind, "enabled": "1", "locked": "0", "pass": "0"})
        values = SubElement(layer, "Option", type="Map")
        for name, value in options.items():
            SubElement(values, "Option", name=name, type="QString", value=value)

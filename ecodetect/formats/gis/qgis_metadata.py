"""What QGIS shows in a layer's properties of where it comes from: title, abstract, history.

The text is QGIS's own (the document type `http://mrcc.com/qgis.dtd`); a GeoPackage keeps it in its table of
metadata, from which QGIS 3.20 and later read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from ecodetect.formats.labels.xml_writing import holdable

STANDARD = "http://mrcc.com/qgis.dtd"
_MOST_RASTERS = 20  # named one by one


def described(metadata: Mapping[str, Any], classes: Sequence[str]) -> str | None:
    """The XML text for a layer's metadata; None for a layer that says nothing of how it was made.

    metadata : of a Stream.  classes : its labels.
    """
    if "ecodetect" not in metadata:
        return None
    rasters = [each for each in metadata.get("rasters") or () if isinstance(each, Mapping)]
    sources = [str(each.get("source", "")) for each in rasters]
    root = Element("qgis", version="3.22.0")
    for name, text in (
        ("identifier", str(metadata.get("key", ""))),
        ("parentidentifier", ""),
        ("language", "ENG"),
        ("type", "dataset"),
        ("title", _title(metadata, classes, sources)),
        ("abstract", "\n".join(_facts(metadata, sources))),
    ):
        SubElement(root, name).text = text
    for each in rasters[:_MOST_RASTERS]:
        text = f"searched {each.get('source', '')} (content {each.get('fingerprint', 'unknown')})"
        SubElement(root, "history").text = text
    if len(rasters) > _MOST_RASTERS:
        SubElement(root, "history").text = f"and {len(rasters) - _MOST_RASTERS} more rasters"
    return f"<!DOCTYPE qgis PUBLIC '{STANDARD}' 'SYSTEM'>\n{holdable(tostring(root, encoding='unicode'))}\n"


def _title(metadata: Mapping[str, Any], classes: Sequence[str], sources: Sequence[str]) -> str:
    if "criterion" in metadata:
        return f"Errors of detections, {metadata['criterion']}"
    what = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
    where = f" in {sources[0]}" if len(sources) == 1 else f" in {len(sources)} rasters" if sources else ""
    return f"{what or 'Detections'}{where}"


def _facts(metadata: Mapping[str, Any], sources: Sequence[str]) -> list[str]:
    facts: dict[str, Any] = {
        "model": metadata.get("model"),
        "hash of the model": metadata.get("model_hash"),
        "criterion": metadata.get("criterion"),
        "area searched": None if metadata.get("area_ha") is None else f"{metadata['area_ha']:g} ha",
        "rasters": ", ".join(sources[:_MOST_RASTERS]) + (" …" if len(sources) > _MOST_RASTERS else ""),
        "ecodetect": metadata.get("ecodetect"),
        **{str(name): value for name, value in (metadata.get("settings") or {}).items()},
    }
    if len(sources) == 1:
        own = metadata["rasters"][0].get("settings")
        facts |= {} if not isinstance(own, Mapping) else {str(name): value for name, value in own.items()}
    return [f"{name}: {_text(value)}" for name, value in facts.items() if value not in (None, "", {}, [])]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

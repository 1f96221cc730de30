"""A layer's metadata as one JSON text, for formats that keep texts under keys."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

KEY = "ecodetect"
FRAME_KEY = "ecodetect:frame"  # `pixel_up` or `affine`, where there is no CRS
# Pixels as a GIS lays a raster without a place: x to the right, y upwards from its upper left corner, so that
# y is negative. Earlier files say `pixel`: y downwards.
PIXEL_UP = "pixel_up"
# The same in files that GDAL writes: it takes a colon for the end of the name, and our two keys for one.
OGR_FRAME_KEY = "ecodetect_frame"
SEAL_KEY = "ecodetect_content"  # the hash of the features, see `content`; beside the metadata, not among them
BLANK = "0" * 64  # stands in its place while the features are written


def to_json(metadata: Mapping[str, Any]) -> str:
    """One line of JSON; NaN and infinity, which JSON doesn't have, are null."""
    return json.dumps(_plain(metadata), ensure_ascii=False, allow_nan=False)


def from_json(text: object) -> dict[str, Any]:
    """What `to_json` wrote; empty for anything else, since a stranger's file may use the same key."""
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def to_texts(metadata: Mapping[str, Any], frame: str, *, frame_key: str = FRAME_KEY) -> dict[str, str]:
    """Keys and texts for a format that has such a place.

    The metadata, with room for the hash of the features, and the frame where it isn't a CRS.
    """
    texts = {KEY: to_json(metadata), SEAL_KEY: BLANK} if metadata else {}
    return texts if frame == "crs" else {**texts, frame_key: frame_in_file(frame)}


def frame_in_file(frame: str) -> str:
    """What a layer for a GIS says of its frame (`Grid.frame`)."""
    return PIXEL_UP if frame == "pixel" else frame


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

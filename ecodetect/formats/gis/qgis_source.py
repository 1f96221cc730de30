"""Sources of layers as QGIS writes them: `trees.gpkg|layername=crowns`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ecodetect.errors import LayerError

BY_NUMBER = "|layerid="  # begins what stands for a layer's name where its number is given, from 0
_MEANINGLESS = ("uniquegeometrytype",)  # for QGIS's own lists


_ADDRESS = re.compile(r"^\w{2,}:/|^/vsi\w+/")


def source_of(path: str | os.PathLike[str], layer: str | None = None) -> tuple[Path, str | None]:
    """The file that a path means, and the layer in it: its name, `BY_NUMBER` and its number, or None.

    path : of a file, perhaps with `|layername=NAME` or `|layerid=N` behind it, perhaps in quotes.
    layer : the layer that is named otherwise.
    Raises LayerError for what else QGIS may write, such as a subset, which isn't read, and for an address.
    """
    text = os.fspath(path)
    if _ADDRESS.search(text) and not Path(text).exists():
        shown = re.sub(r":/(?!/)", "://", text, count=1)  # as it was before it became a path
        raise LayerError(f"{shown} is an address: only rasters are read from one; download it.")
    if "|" not in text or Path(text).exists():
        return Path(text), layer
    name, *parts = _unquoted(text).split("|")
    source = Path(_unquoted(name))
    found = layer
    for part in parts:
        key, _, value = part.partition("=")
        key, value = key.strip().lower(), _unquoted(value)
        if key in ("layername", "layerid") and value:
            wanted = value if key == "layername" else BY_NUMBER + value
            if found not in (None, wanted):
                raise LayerError(f"{source}: the layer is named twice, '{found}' and '{value}'; name one.")
            if key == "layerid" and not value.isdecimal():
                raise LayerError(f"{source}: |layerid= takes the number of a layer, from 0; got '{value}'.")
            found = wanted
        elif key not in _MEANINGLESS:
            raise LayerError(
                f"{source}: of what QGIS writes behind a file only |layername= and |layerid= are read, not"
                f" |{key}=; in QGIS, save the features that are meant as a file of their own."
            )
    return source, found


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1].strip()
    return text

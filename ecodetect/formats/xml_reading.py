"""XML of strangers as a tree: no DOCTYPE, so no entities and no files fetched; bounded in size and depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ecodetect.errors import LayerError
from ecodetect.formats.text_reading import read_bytes

MOST_ELEMENTS = 5_000_000  # about 1 GB as a tree
MOST_DEPTH = 64


def read_xml(path: Path) -> Element:
    """The root element of an XML file.

    Raises LayerError for a file that is missing, empty, too large, not well-formed, or has a DOCTYPE (whose
    entities can grow without bound or name other files).
    """
    data = read_bytes(path)
    if not data:
        raise LayerError(f"{path.name} is empty (0 bytes).")
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    depth = elements = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, elements
        depth += 1
        elements += 1
        if depth > MOST_DEPTH:
            raise LayerError(f"{path.name} is nested too deeply to be an annotation file.")
        if elements > MOST_ELEMENTS:
            raise LayerError(f"{path.name} has more than {MOST_ELEMENTS:,} elements; split it.")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: Any) -> None:
        raise LayerError(f"{path.name} has a DOCTYPE, which could name other files; remove it.")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
        root: Element = builder.close()
    except expat.ExpatError as error:
        raise LayerError(
            f"{path.name} is not complete XML: {expat.errors.messages[error.code]} at line {error.lineno},"
            f" column {error.offset + 1}."
        ) from error
    except (LookupError, ValueError) as error:
        if isinstance(error, LayerError):
            raise
        raise LayerError(f"{path.name} has an encoding that can't be read: {error}.") from error
    return root

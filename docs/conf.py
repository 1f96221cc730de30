"""How Sphinx builds these pages: `sphinx-build -W docs docs/_build`, with the extra `docs` installed."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from generating import filled

from ecodetect import __version__

project = "ecodetect"
author = "the ecodetect contributors"
version = release = __version__
html_title = f"ecodetect {version}"
html_theme = "furo"
html_copy_source = False

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"


def setup(app: Any) -> None:
    app.connect("source-read", lambda app, name, source: source.__setitem__(0, filled(source[0])))
    app.connect("autodoc-process-docstring", _as_rst)


_ITEM = re.compile(r"^(\w+(?:, \w+)*) : (.*)$")
_TWO_ITEMS = re.compile(r"(?<=[.;])  (?=\w+(?:, \w+)* : )")


def _as_rst(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Our docstrings as reStructuredText: `name : meaning` is an item of a list, a bar is a bar."""
    if what == "module":  # its first sentence; the rest is for readers of the code
        del lines[lines.index("") if "" in lines else len(lines) :]
    out: list[str] = []
    is_list = False
    for line in [part for whole in lines for part in _TWO_ITEMS.split(whole)]:
        if line and set(line) == {"-"}:  # under the heading of a section
            out[-1:] = [f"**{out[-1].strip()}**", ""]
            continue
        item = _ITEM.match(line)
        text = _escaped(line if item is None else item[2])
        if item is not None:
            text = f"- ``{item[1]}``: {text}"
        starts_list = text.startswith("- ") and not is_list
        ends_list = is_list and bool(text) and not text.startswith(("- ", "  "))
        if (starts_list or ends_list) and out and out[-1]:
            out.append("")
        is_list = text.startswith("- ") or (is_list and text.startswith("  "))
        out.append(f"  {text.strip()}" if is_list and text.startswith("  ") else text)
    lines[:] = out


def _escaped(line: str) -> str:
    parts = re.split(r"(`[^`]+`)", line)
    parts[::2] = [re.sub(r"(?<!\\)([|*])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"`{part}`" for part in parts[1::2]]
    return "".join(parts)

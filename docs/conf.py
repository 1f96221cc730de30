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

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True}


def setup(app: Any) -> None:
    app.connect("source-read", lambda app, name, source: source.__setitem__(0, filled(source[0])))
    app.connect("autodoc-process-docstring", _as_rst)


_ITEM = re.compile(r"^(\w+(?:, \w+)*) : (.*)$")


def _as_rst(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Our docstrings as reStructuredText: `name : meaning` is a field, one backtick is code, `|` is a bar."""
    if what == "module":  # its first sentence; the rest is for readers of the code
        del lines[lines.index("") if "" in lines else len(lines) :]
    out: list[str] = []
    within = False
    for line in lines:
        item = _ITEM.match(line)
        if item:
            if not within and out and out[-1]:
                out.append("")
            within = True
            line = f":{item[1]}: {item[2]}"
        elif within and line and not line.startswith(" "):
            within = False
            out.append("")
        elif (
            not within and line.startswith("- ") and out and out[-1] and not out[-1].startswith(("- ", "  "))
        ):
            out.append("")
        parts = re.split(r"(`[^`]+`)", line)
        parts[::2] = [re.sub(r"(?<!\\)([|*])", r"\\\1", part) for part in parts[::2]]
        parts[1::2] = [f"`{part}`" for part in parts[1::2]]
        out.append("".join(parts))
    lines[:] = out

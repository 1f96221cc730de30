"""Whether a CRS names files: grids and tables that PROJ would open anywhere.

A CRS may name a shift grid, and PROJ opens it by name as soon as a place is transformed: any file of the
system, or a pipe, where it waits forever. Plain names (`conus`,
`us_noaa_conus.tif`) are searched only among PROJ's own files, and are safe.
"""

from __future__ import annotations

import contextlib
import json
import re
from functools import lru_cache
from typing import Any

from pyproj import CRS

from ecodetect.errors import UserError

# A path: absolute, or one that begins in a folder (`./x`, `~/x`), on a disk (`C:\x`), or on a server.
_PATH = r"(?:/|\\|~|\.{1,2}[/\\]|[a-z]:[/\\]|[a-z]\w+://)"
# Where a file may be named: as second text of an element of WKT, as a value in JSON, in a string of PROJ, and
# as a further one in a list. Names of CRSs have slashes too, but not there.
_NAMED = re.compile(
    rf"""(?:,\s*["“]|"value"\s*:\s*"|=["“]*|(?<=\S),)@?({_PATH}[^"”,\s]*)|(\S*\.\.[/\\][^"”,\s]*)""",
    re.IGNORECASE,
)
# Parts of metadata that GDAL takes for a CRS, and which PROJ gets at once: its strings, and WKT.
_PARTS = re.compile(
    r"""\b(?:proj|init)\s*=[^<"]*|PROJ4(?:_GRIDS)?["”][^<\])]*|PARAMETERFILE\s*[\[(][^<\])]*"""
    r"""|<\s*srs\b[^>]*>(?:\s*<!\[CDATA\[)?[^<]*""",
    re.IGNORECASE,
)


def file_in(stated: Any) -> str | None:
    """The file that a CRS names by a path, in WKT, PROJJSON or a string of PROJ; None: it names none."""
    text = stated if isinstance(stated, str) else json.dumps(stated, ensure_ascii=False)
    if text.lstrip().startswith("{"):
        with contextlib.suppress(ValueError, RecursionError):  # not JSON, so nothing reads it as JSON
            text = json.dumps(json.loads(text), ensure_ascii=False)
    return _named_in(text)


@lru_cache(maxsize=64)  # the rasters of a folder share their CRS
def _named_in(text: str) -> str | None:
    found = _NAMED.search(text)
    return None if found is None else found[1] or found[2]


def file_in_metadata(text: str) -> str | None:
    """The file that a CRS somewhere in a text names; None: there is none."""
    return next((named for each in _PARTS.findall(text) if (named := file_in(each))), None)


def check_crs(stated: Any, shown: str, *, error: type[UserError]) -> None:
    """Raise `error` for a CRS that names a file."""
    named = file_in(stated)
    if named is not None:
        short = named if len(named) <= 80 else named[:77] + "…"
        raise error(
            f"{shown} has a CRS that takes its places from another file ('{short}'), which is not followed;"
            " give it a CRS by its number (gdal_edit.py -a_srs EPSG:…, or in a GIS)."
        )


def read_crs(stated: Any, shown: str, *, error: type[UserError]) -> CRS:
    """A CRS in the words of a stranger's file.

    stated : WKT, PROJJSON, a code, or a string of PROJ.
    Raises `error` where it names a file, and pyproj's CRSError where it is none.
    """
    check_crs(stated, shown, error=error)
    return CRS.from_user_input(stated)

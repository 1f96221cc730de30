"""The state of a raster's files: by it one is noticed that is replaced or written to while it is searched."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

_NO_PIXELS = (".aux.xml",)  # statistics and names, which a viewer writes in passing


def state_of(files: Iterable[str]) -> str:
    """Name, size and time of change of local files as they are now, as one text.

    files : as GDAL names them. What isn't on this machine is left out; of an archive counts the archive.
    """
    facts: list[tuple[str, int, int]] = []
    for name in sorted(files):
        file = _on_disk(name)
        if file is None or file.name.endswith(_NO_PIXELS):
            continue
        try:
            state = file.stat()
        except OSError:
            facts.append((file.name, -1, -1))
            continue
        facts.append((file.name, state.st_size, state.st_mtime_ns))
    return json.dumps(facts)


def _on_disk(name: str) -> Path | None:
    """The local file that holds what GDAL calls by this name; None where there was none."""
    if not name.startswith("/vsi"):
        return Path(name) if not name.partition(":")[0].isupper() else _in_array(name)
    if name.startswith(("/vsicurl", "/vsis3", "/vsigs", "/vsiaz", "/vsimem", "/vsiadls", "/vsioss")):
        return None
    inside = Path("/" + name.split("/", 2)[-1].lstrip("/"))
    return next((each for each in (inside, *inside.parents) if each.is_file()), None)


def _in_array(name: str) -> Path | None:
    """The file in GDAL's name of one of several arrays: `NETCDF:"file.nc":name`."""
    found = [Path(part.strip('"')) for part in name.split(":")[1:]]
    return next((each for each in found if each.is_file()), None)

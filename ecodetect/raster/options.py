"""How rasters are opened, as a user says it: once, for every verb that opens them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ecodetect.raster.reading import Raster, open_raster


@dataclass(frozen=True, kw_only=True, slots=True)
class RasterOptions:
    """What a user states about rasters.

    bands : names or numbers of bands, comma-separated; None: by the raster's own names.
    gsd_m : metres per pixel, where the raster doesn't say.
    nodata : value that stands for no data, where the raster declares none or another.
    allow_vrt : whether a VRT may point outside its folder.
    See `open_raster`.
    """

    bands: str | None = None
    gsd_m: float | None = None
    nodata: float | None = None
    allow_vrt: bool = False

    def opened(self, image: str | os.PathLike[str]) -> Raster:
        """A raster, opened as these options say; raises RasterError where it can't be."""
        return open_raster(
            image, bands=self.bands, gsd_m=self.gsd_m, nodata=self.nodata, allow_vrt=self.allow_vrt
        )

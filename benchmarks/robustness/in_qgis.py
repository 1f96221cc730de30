"""What QGIS shows of a layer over its raster, as a picture: by its own defaults, nothing set by hand.

    /usr/bin/python3 benchmarks/robustness/in_qgis.py ortho.tif found.geojson shown.png

Needs QGIS's Python (Debian: python3-qgis), which is no dependency of ecodetect, and nothing of ecodetect.
Says how the layer opened: its CRS, renderer, types of columns, title and history, and how many features no
symbol draws.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from qgis.core import (
    QgsApplication,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsRasterLayer,
    QgsRenderContext,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

SHOWN = 0.5  # of the raster's width and height, about its middle
SIZE_PX = (900, 750)


def undrawn(layer: QgsVectorLayer) -> int:
    """How many features have no symbol in the layer's renderer."""
    renderer, context = layer.renderer(), QgsRenderContext()
    renderer.startRender(context, layer.fields())
    count = 0
    for feature in layer.getFeatures():
        context.expressionContext().setFeature(feature)
        count += renderer.symbolForFeature(feature, context) is None
    renderer.stopRender(context)
    return count


def draw(layers: list[QgsVectorLayer | QgsRasterLayer], raster: QgsRasterLayer, path: str) -> None:
    """Render layers over the extent of a raster into a picture."""
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setDestinationCrs(raster.crs())
    settings.setOutputSize(QSize(*SIZE_PX))
    settings.setBackgroundColor(QColor("white"))
    extent = raster.extent()
    extent.scale(SHOWN)
    settings.setExtent(extent)
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(path)


def main() -> None:
    """Open raster and layer in QGIS and save a picture of them."""
    raster_path, layer_path, out = sys.argv[1:]
    raster, layer = QgsRasterLayer(raster_path, "raster"), QgsVectorLayer(layer_path, "layer", "ogr")
    if not (raster.isValid() and layer.isValid()):
        sys.exit(f"QGIS can't open {layer_path if raster.isValid() else raster_path}.")
    types = ", ".join(f"{field.name()} {field.typeName()}" for field in layer.fields())
    print(f"{layer_path}: {layer.featureCount()} features, CRS {layer.crs().authid() or 'none'}")
    print(f"  renderer  {layer.renderer().type()}, {undrawn(layer)} features undrawn")
    print(f"  columns   {types}")
    about = layer.metadata()
    print(f"  title     {about.title() or 'none'}; {len(about.history())} lines of history")
    draw([layer, raster], raster, out)


if __name__ == "__main__":
    application = QgsApplication([], False)
    application.initQgis()
    main()
    application.exitQgis()

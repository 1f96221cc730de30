"""What a person does with a file of plots in QGIS, by its editing API; prints what QGIS shows, as JSON.

    /usr/bin/python3 tests/qgis_review.py trees.plots.gpkg [picture.png ortho.tif]

Needs QGIS's Python and nothing of ecodetect: `test_plots_in_qgis` runs it. All plots become done by Ann, the
first detection is set false, the second is deleted, the third gets another label where there is one, and
an individual is added in the middle of plot 1.
"""

from __future__ import annotations

import json
import os
import sys

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from qgis.core import (
    QgsApplication,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsRasterLayer,
    QgsVectorLayer,
    QgsVectorLayerUtils,
)
from qgis.PyQt.QtCore import QSize


def form(layer: QgsVectorLayer) -> dict[str, object]:
    """The form and the look that a layer opens with."""
    fields = {}
    for index, field in enumerate(layer.fields()):
        widget = layer.editorWidgetSetup(index)
        choices = [name for pair in widget.config().get("map", []) for name in pair]
        fields[field.name()] = {
            "widget": widget.type(),
            "choices": choices,
            "alias": layer.attributeAlias(index),
            "default": layer.defaultValueDefinition(index).expression(),
            "read_only": layer.editFormConfig().readOnly(index),
        }
    renderer = layer.renderer()
    return {
        "fields": fields,
        "renderer": renderer.type(),
        "values": [each.value() for each in renderer.categories()],
        "labels": layer.labelsEnabled(),
        "crs": layer.crs().authid(),
    }


def review(plots: QgsVectorLayer, individuals: QgsVectorLayer) -> None:
    """Check all plots."""
    plots.startEditing()
    state, checker = (plots.fields().indexOf(name) for name in ("state", "checker"))
    for feature in plots.getFeatures():
        plots.changeAttributeValue(feature.id(), state, "done")
        plots.changeAttributeValue(feature.id(), checker, "Ann")
    assert plots.commitChanges(), plots.commitErrors()
    individuals.startEditing()
    inside = [feature for feature in individuals.getFeatures() if feature["plot"]]
    individuals.changeAttributeValue(inside[0].id(), individuals.fields().indexOf("verdict"), "false")
    individuals.deleteFeature(inside[1].id())
    middle = next(each for each in plots.getFeatures() if each["plot"] == 1).geometry().pointOnSurface()
    # As a form does it: with the default values of the fields.
    added = QgsVectorLayerUtils.createFeature(individuals, middle)
    added["label"] = added["label"] or inside[0]["label"]
    assert individuals.addFeature(added)
    assert individuals.commitChanges(), individuals.commitErrors()


def draw(layers: list[QgsVectorLayer | QgsRasterLayer], path: str) -> None:
    """Render layers over the extent of the first plots."""
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setDestinationCrs(layers[-1].crs())
    settings.setOutputSize(QSize(1000, 1000))
    settings.setExtent(layers[-1].extent())
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(path)


def main() -> None:
    """Open the file, check it, save it."""
    path = sys.argv[1]
    plots = QgsVectorLayer(f"{path}|layername=plots", "plots", "ogr")
    individuals = QgsVectorLayer(f"{path}|layername=individuals", "individuals", "ogr")
    assert plots.isValid()
    assert individuals.isValid()
    shown = {"plots": form(plots), "individuals": form(individuals)}
    review(plots, individuals)
    if len(sys.argv) > 2:
        draw([individuals, plots, QgsRasterLayer(sys.argv[3], "raster")], sys.argv[2])
    print(json.dumps(shown))


if __name__ == "__main__":
    application = QgsApplication([], False)
    application.initQgis()
    main()
    application.exitQgis()

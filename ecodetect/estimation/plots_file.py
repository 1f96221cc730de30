"""The file of plots that a person checks in QGIS: its layers, their forms and colours, and the draw.

`plots` are outlines with a state, `individuals` points with a label and a verdict. `plots_reading` reads it.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.errors import LayerError, already_there
from ecodetect.estimation.plane import Plane
from ecodetect.estimation.record import Record, RecordedPlot
from ecodetect.formats.gis import geopackage_layers
from ecodetect.formats.gis.geopackage_layers import EditedLayer
from ecodetect.formats.gis.qgis_form import FormField, add_form, text_of
from ecodetect.formats.gis.qgis_style import Category, Look, add_categories
from ecodetect.formats.labels.xml_writing import holdable
from ecodetect.formats.protocol import reason
from ecodetect.grid import Floats
from ecodetect.layer import Geometries, Layer
from ecodetect.whole_file import settle, staged, sync

PLOTS, INDIVIDUALS, DRAW = "plots", "individuals", "ecodetect_draw"
STATES = ("to do", "done", "unusable")
VERDICTS = ("unchecked", "right", "false", "unsure")
PLOT_COLUMNS = {
    "plot": "int", "stratum": "str", "cell": "str", "detections": "int",
    "state": "str", "checker": "str", "note": "str",
}  # fmt: skip
INDIVIDUAL_COLUMNS = {"id": "str", "plot": "int", "label": "str", "score": "float", "verdict": "str"}

_STATE_LOOKS = {
    "to do": Look("#f0e442"),
    "done": Look("#0072b2"),
    "unusable": Look("#bbbbbb", line="dash"),
}
# Told apart by shape too, as the errors of `evaluate` are.
_VERDICT_LOOKS = {
    "unchecked": Look("#f0e442"),
    "right": Look("#56b4e9"),
    "false": Look("#d55e00", "cross2"),
    "unsure": Look("#bbbbbb", "square"),
    "added": Look("#ffffff", "star"),
}
_KIND = """if(coalesce("id", '') = '' and "verdict" = 'right', 'added', coalesce("verdict", 'unchecked'))"""


def write(path: Path, layers: Sequence[EditedLayer], record: Record, *, overwrite: bool) -> None:
    """Write a file of plots, whole or not at all.

    Raises LayerError where one is there and isn't to be replaced, and where it can't be written.
    """
    check_free(path, overwrite=overwrite)
    try:
        with staged(path) as stage:
            made = stage / path.name
            geopackage_layers.write(made, layers, {DRAW: record.to_json()})
            sync(made)
            settle(made, path, replace=overwrite)
    except FileExistsError as error:
        raise already_there(path, error=LayerError) from error
    except OSError as error:
        raise LayerError(f"{path} can't be written: {reason(error)}.") from error


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raise LayerError, before work starts, where the file can't be written."""
    if path.suffix.lower() != ".gpkg":
        raise LayerError(f"{path} can't hold plots to check; write a .gpkg.")
    if not path.parent.is_dir():
        raise LayerError(f"{path} can't be written: the folder {path.parent} doesn't exist; make it first.")
    if os.path.lexists(path) and (not overwrite or not path.is_file()):
        raise already_there(path, "it may hold what somebody checked", error=LayerError)
    if os.path.lexists(path):
        check_closed(path)


def check_closed(path: Path) -> None:
    """Raise LayerError where another program has changes of the file that aren't in it yet."""
    for ending in ("-wal", "-journal"):
        beside = path.with_name(path.name + ending)
        if beside.is_file() and beside.stat().st_size:
            raise LayerError(f"{path} is open in another program; save your edits and close it there first.")


def extend(path: Path, layers: Sequence[EditedLayer], record: Record) -> None:
    """Add plots to a file; nothing that is in it is touched. Whole or not at all."""
    check_closed(path)
    try:
        with staged(path) as stage:
            made = stage / path.name
            shutil.copyfile(path, made)
            geopackage_layers.extend(made, layers, {DRAW: record.to_json()})
            sync(made)
            check_closed(path)
            settle(made, path, replace=True)
    except OSError as error:
        why = "the disk is full" if error.errno == errno.ENOSPC else reason(error)
        raise LayerError(f"{path} can't be extended: {why}.") from error


def plots_layer(plane: Plane, outlines: Geometries, plots: Sequence[RecordedPlot]) -> EditedLayer:
    """The layer of outlines.  plots : as they were drawn, in the same order."""
    rows: dict[str, list[Any]] = {
        "plot": [each.number for each in plots],
        "stratum": [each.stratum for each in plots],
        "cell": [each.cell for each in plots],
        # Who is to see no detection shall not know their number either.
        "detections": [None if each.is_blind else len(each.detections) for each in plots],
        "state": [STATES[0]] * len(plots),
        "checker": [None] * len(plots),
        "note": [None] * len(plots),
    }
    kind = "Unknown" if any(shape.geom_type != "Polygon" for shape in outlines) else "Polygon"
    return EditedLayer(PLOTS, _laid(plane, outlines, rows, PLOT_COLUMNS), kind, PLOT_COLUMNS, _plots_qml())


def individuals_layer(
    plane: Plane,
    xy: Floats,
    ids: Sequence[str],
    labels: Sequence[str],
    scores: Sequence[float],
    plots: Sequence[int | None],
    classes: Sequence[str],
) -> EditedLayer:
    """The layer of individuals to check.  plots : number of the plot of each; None in the margin of one."""
    rows: dict[str, list[Any]] = {
        "id": list(ids),
        "plot": list(plots),
        "label": list(labels),
        "score": list(scores),
        "verdict": [VERDICTS[0]] * len(ids),
    }
    points = np.asarray(shapely.points(xy), dtype=object).reshape(-1)
    laid = _laid(plane, points, rows, INDIVIDUAL_COLUMNS)
    return EditedLayer(INDIVIDUALS, laid, "Point", INDIVIDUAL_COLUMNS, _individuals_qml(classes))


def _laid(plane: Plane, shapes: Geometries, rows: dict[str, list[Any]], kinds: dict[str, str]) -> Layer:
    """Shapes of the plane as a layer to write."""
    columns: dict[str, NDArray[Any]] = {
        name: np.array(values, np.float64 if kinds[name] == "float" else object)
        for name, values in rows.items()
    }
    return Layer(shapes, columns, grid=plane.grid if plane.crs is None else None, crs=plane.crs)


def _plots_qml() -> str:
    root = Element("qgis", version="3.22.0", styleCategories="Symbology|Labeling|Fields|Forms")
    looks = [Category(name, name, look) for name, look in _STATE_LOOKS.items()]
    add_categories(root, '"state"', [*looks, Category("", "other", Look("#ffffff"))], is_point=False)
    _add_labels(root, "plot")
    add_form(
        root,
        [
            FormField("fid", is_editable=False, is_hidden=True),
            FormField("plot", "Plot, in the order to check", is_editable=False),
            FormField("stratum", "Stratum", is_editable=False),
            FormField("cell", "Cell", is_editable=False),
            FormField("detections", "Detections", is_editable=False),
            FormField("state", "State", STATES),
            FormField("checker", "Checked by"),
            FormField("note", "Note"),
        ],
    )
    SubElement(root, "layerGeometryType").text = "2"
    return holdable(tostring(root, encoding="unicode"))


def _individuals_qml(classes: Sequence[str]) -> str:
    root = Element("qgis", version="3.22.0", styleCategories="Symbology|Fields|Forms")
    looks = [Category(name, name, look) for name, look in _VERDICT_LOOKS.items()]
    add_categories(root, _KIND, [*looks, Category("", "other", Look("#ffffff"))], is_point=True)
    add_form(
        root,
        [
            FormField("fid", is_editable=False, is_hidden=True),
            FormField("id", "Detection (empty: added)", is_editable=False),
            FormField("plot", "Plot", is_editable=False),
            FormField("label", "Class", tuple(classes), text_of(classes[0]) if len(classes) == 1 else ""),
            FormField("score", "Score", is_editable=False),
            FormField("verdict", "Verdict", VERDICTS, text_of("right")),
        ],
    )
    SubElement(root, "layerGeometryType").text = "0"
    return holdable(tostring(root, encoding="unicode"))


def _add_labels(root: Element, field: str) -> None:
    """Write a field into each outline, with a halo, since pictures are of any colour."""
    labeling = SubElement(root, "labeling", type="simple")
    settings = SubElement(labeling, "settings", calloutType="simple")
    style = SubElement(
        settings, "text-style", fieldName=field, isExpression="0", fontSize="11", fontSizeUnit="Point",
        fontWeight="75", textColor="255,255,255,255", namedStyle="Bold", fontFamily="Sans",
    )  # fmt: skip
    SubElement(
        style, "text-buffer", bufferDraw="1", bufferSize="0.8", bufferSizeUnits="MM", bufferColor="0,0,0,255"
    )
    # In the upper left corner, and not in the middle, where individuals may lie.
    SubElement(
        settings, "placement", placement="1", quadOffset="8", geometryGeneratorEnabled="1",
        geometryGenerator="make_point(x_min($geometry), y_max($geometry))",
        geometryGeneratorType="PointGeometry",
    )  # fmt: skip
    SubElement(settings, "rendering", drawLabels="1", obstacle="0")

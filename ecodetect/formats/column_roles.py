"""Which column of a layer says the class, and which the score: by the names that people and programs give.

One rule for annotations and detections, for reading, comparing and converting. Names are compared without
case, accents, blanks and signs; of several the more telling name goes first, and texts go before numbers,
since programs write both (`class 3`, `name tree`).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, NDArray[Any]]

# In order of preference, each as `plain` gives it.
_CLASS = (
    "label", "labels", "labelname", "class", "classname", "classlabel", "classes", "classification",
    "species", "speciesname", "category", "categoryname", "taxon", "taxonname", "art",
    # of detectors' outputs: supervision, ultralytics, DeepForest, MegaDetector, HerdNet, QuPath
    "predictedclass", "predclass", "predictedlabel", "predlabel", "prediction", "cls", "objectclass",
    # of herbaria and surveys (Darwin Core)
    "scientificname", "latinname", "acceptedname", "vernacularname", "commonname", "taxonid",
    "speciescode", "speciesid", "spcode", "sppcode", "spp", "sp",
    # as ecologists call it elsewhere
    "especie", "especies", "nombrecientifico", "nomecientifico", "clase", "classe", "categoria",
    "espece", "especes", "nomscientifique", "nomlatin", "categorie",
    "artname", "klasse", "kategorie", "baumart", "pflanzenart", "tierart",
    "soort", "soortnaam", "klass", "kategori", "laji", "specie", "gatunek", "druh", "tur", "вид", "класс",
    "物种", "树种", "种", "類別", "类别", "種",
    "type", "tipo", "typ", "kind", "name", "classid", "categoryid", "labelid",
)  # fmt: skip
_SCORE = (
    "score", "scores", "confidence", "confidences", "conf", "probability", "prob", "probabilities",
    "confidencescore", "detectionconfidence", "detectionconf", "detectionscore", "detconf", "detscore",
    "predictionscore", "predictionconfidence", "predscore", "predictedscore", "classconfidence", "classconf",
    "classscore", "modelconfidence", "boxscore", "boxconfidence", "objectness", "certainty", "likelihood",
    "dscores", "dscore", "maxdetectionconf", "confianza", "probabilidad", "confiance", "probabilite",
    "confianca", "konfidenz", "wahrscheinlichkeit", "sicherheit", "betrouwbaarheid",
)  # fmt: skip
# Texts that tell one feature or one file from another, not one class from another.
_OTHER_MEANING = frozenset({
    "id", "fid", "uuid", "guid", "globalid", "objectid", "objecttype", "geometry", "geom", "wkt",
    "source", "image", "images", "imagepath", "imagename", "imagefile", "imagefilename", "imageid",
    "filename", "filepath", "file", "img", "path", "raster",
})  # fmt: skip
_MISSING = frozenset({"", "nan", "null", "<na>", "<null>", "n/a", "#n/a"})
_YES_OR_NO = frozenset({
    "0", "1", "t", "f", "y", "n", "j", "x", "true", "false", "yes", "no", "ja", "nein", "si", "sí", "oui",
    "non", "sim", "não", "wahr", "falsch", "verdadero", "falso",
})  # fmt: skip
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}( \d\d:\d\d.*)?"
).fullmatch
_OUR_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]+(-[0-9a-f]+)*").fullmatch
_FEWEST_IDS = 10  # so many different texts without one that comes twice are names of individuals


def plain(name: str) -> str:
    """A column's name without what people and programs vary: case, accents, blanks, signs, a unit."""
    name = unicodedata.normalize("NFKD", re.sub(r"[\[(].*?[\])]", "", name))
    bare = "".join(char for char in name if not unicodedata.combining(char))
    return re.sub(r"[\W_]+", "", bare.casefold())


def class_column(columns: Columns) -> str | None:
    """The column that holds the class, by its name and its values; None where none does.

    Columns without a value don't count. Texts go before numbers, and texts that repeat before texts that
    differ in each of ten rows or more, which are names of individuals.
    """
    found = [name for name in _named(columns, _CLASS) if columns[name].dtype.kind != "b"]
    if not found:
        return None
    texts = {name: [text for text in classes_in(columns, name).tolist() if text] for name in found}
    filled = [name for name in found if texts[name]]
    if not filled:
        return found[0]
    spoken = [name for name in filled if not all(map(_is_number, set(texts[name])))]
    classes = [name for name in spoken if not _are_ids(texts[name])]
    numbers = [name for name in filled if name not in spoken]
    return next(iter([*classes, *numbers, *spoken]))


def score_column(columns: Columns) -> str | None:
    """The column that holds the score of a detection; None where none does."""
    for name in _named(columns, _SCORE):
        if np.isfinite(scores(columns[name])).any():
            return name
    return None


def text_columns(columns: Columns, *, without: Collection[str | None] = ()) -> dict[str, int]:
    """The columns that might hold classes: names of those with texts, and how many different ones.

    Left out are names of files and individuals, dates, yes and no, and columns with another text in each of
    three rows or more.
    """
    found = {}
    for name, values in columns.items():
        if name in without or values.dtype.kind not in "OU" or plain(name) in _OTHER_MEANING:
            continue
        texts = [text for text in class_names(values).tolist() if text]
        kinds = set(texts)
        if not kinds or (len(kinds) == len(texts) and len(texts) > 2):
            continue
        if all(_is_number(text) and not text.isdecimal() for text in kinds):  # measured, not a code
            continue
        if all(_DATE(text) or text.casefold() in _YES_OR_NO for text in kinds):
            continue
        found[name] = len(kinds)
    return found


def classes_in(columns: Columns, column: str, *, are_stated: bool = False) -> NDArray[np.object_]:
    """The classes that a column of a layer names, (N,) str; "" where it names none.

    In a layer of ours the column `label` holds names and nothing else, so that a class may be called `NA` or
    `null`; in a foreign one these words say that there is none, as R, pandas and QGIS write it.
    are_stated : the file's format has a place for names of classes, which are names in every case.
    """
    values = columns[column]
    names = class_names(values)
    if column != "label" or values.dtype.kind not in "OU" or np.array_equal(names, values):
        return names
    if not are_stated and not have_our_ids(columns):
        return names
    names[:] = [value if isinstance(value, str) else "" for value in values.tolist()]
    return names


def have_our_ids(columns: Mapping[str, Any]) -> bool:
    """Whether we wrote the layer, by the ids that we give; rows without an id were added by hand."""
    ids = list(filter(None, columns["id"])) if "id" in columns else []
    return bool(ids) and all(isinstance(each, str) and _OUR_ID(each) is not None for each in ids)


def class_names(values: NDArray[Any]) -> NDArray[np.object_]:
    """The classes that a column of any file names, (N,) str; "" where it names none.

    A whole number is the same class with and without a decimal point. For an object in JSON, as QuPath
    writes its classes, the name counts.
    """
    known: dict[Any, str] = {}
    names = np.full(len(values), "", dtype=object)
    for row, value in enumerate(values.tolist()):
        key = (type(value), value)
        if key not in known:
            known[key] = _class_name(value)
        names[row] = known[key]
    return names


def scores(values: NDArray[Any]) -> NDArray[np.float64]:
    """A column as float64 (N,); NaN where it holds no number."""
    if values.dtype.kind in "fiu":
        return values.astype(np.float64)
    found = np.full(len(values), np.nan)
    for row, value in enumerate(values.tolist()):
        if isinstance(value, str) and _is_number(value.strip()):
            found[row] = float(value)
    return found


def _named(columns: Columns, names: tuple[str, ...]) -> list[str]:
    """Columns with one of these names, in the order of the names."""
    by_plain: dict[str, list[str]] = {}
    for name in columns:
        by_plain.setdefault(plain(name), []).append(name)
    return [name for wanted in names for name in by_plain.get(wanted, ())]


def _are_ids(texts: list[str]) -> bool:
    return len(texts) >= _FEWEST_IDS and len(set(texts)) == len(texts)


_is_number = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?").fullmatch


def _class_name(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    text = str(value)
    if text.strip().casefold() in _MISSING or text.strip() == "NA":
        return ""
    return _of_json(text) if text.lstrip()[:1] == "{" else text


def _of_json(text: str) -> str:
    """The name in an object of JSON; the text itself where it is none."""
    try:
        entry = json.loads(text)
    except ValueError:
        return text
    for key in ("name", "names", "label", "class", "value"):
        found = entry.get(key)
        if isinstance(found, str):
            return found
        if isinstance(found, list) and found and all(isinstance(part, str) for part in found):
            return ": ".join(found)  # as QuPath shows a class derived from another
    return text

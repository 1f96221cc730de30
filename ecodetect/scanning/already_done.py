"""Existing outputs: whether they answer exactly this question, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ecodetect.classification.answering import answers_of, read_classifiers
from ecodetect.errors import PackageError, UserError, already_there
from ecodetect.formats import files as formats
from ecodetect.notes import merged
from ecodetect.scanning import score_maps
from ecodetect.scanning.drawing import draw
from ecodetect.scanning.journal import Journal
from ecodetect.scanning.journal_file import journal_path
from ecodetect.scanning.overlaps import overlap_note
from ecodetect.scanning.question import journal_key, question
from ecodetect.scanning.results import Summary, classifier_facts, result_key
from ecodetect.scanning.settings import Output, Settings
from ecodetect.version import __version__

_PICTURE_CACHE_BYTES = 64_000_000


def is_map_of(path: Path, image: str, asked: Settings) -> bool:
    """Whether a file is the map of scores that answers exactly this question."""
    stated = score_maps.key_in(path) if path.exists() else None
    if stated is None:
        return False
    with asked.opened(image) as raster:
        plan = question(raster, asked)
        return stated == result_key([plan.key], Output(), [], [plan.footprint])


def known(
    path: Path, images: list[str], asked: Settings, output: Output
) -> tuple[Summary, list[tuple[str, UserError]]]:
    """The summary of an existing output that answers exactly this question; pictures are drawn from it.

    Returns also the rasters that can't be opened: no output has them.
    Raises UserError where the file is something else, or has been edited.
    """
    try:
        stated = formats.read_metadata(path)
    except UserError:
        stated = {}
    keys, looks, footprints, failures, notes = [], [], [], [], []
    classes: tuple[str, ...] = ()
    bundles = read_classifiers(output.classify)
    for image in images:
        try:
            with asked.opened(image) as raster:
                plan = question(raster, asked)
                looks += classifier_facts(bundles, raster)
        except PackageError:
            raise
        except UserError as error:
            failures.append((image, error))
            continue
        keys.append(plan.key)
        classes = plan.detector.classes
        footprints.append(plan.footprint)
        notes += [note.of(raster.name) for note in raster.notes]
    if not keys and failures:
        raise failures[0][1]  # replacing the file wouldn't help
    if stated.get("key") != result_key(keys, output, looks, footprints):
        raise already_there(path, f"it {_other_answer(stated)}")
    held = formats.held_by(path)
    if not held.is_as_written:
        kept = formats.kept_name(path).name
        raise already_there(path, f"it has been edited since it was written (which is then kept as {kept})")
    _tidy(path, [journal_key(key, asked, is_mapped=mapped) for key in keys for mapped in (False, True)])
    if output.picture or output.sheet:
        with asked.opened(images[0]) as raster:
            draw(raster, asked, output, path, classes, _PICTURE_CACHE_BYTES)
    answers = answers_of(bundles[0].card) if bundles else ()
    assert held.tally is not None
    summary = Summary.known(path, stated, held.tally, classes, answers)
    overlapping = overlap_note(footprints)
    said = [*notes, *([] if overlapping is None else [overlapping])]
    return replace(summary, notes=merged(said)), failures


def _other_answer(stated: Mapping[str, Any]) -> str:
    """Why an existing output isn't the answer.  stated : its metadata."""
    if "key" not in stated:
        return "doesn't say what it answers"
    version, model = stated.get("ecodetect"), stated.get("model")
    if version != __version__:
        return f"is the answer of ecodetect {version} (this is {__version__})"
    sources = [str(each.get("source")) for each in stated.get("rasters", ()) if isinstance(each, dict)]
    more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
    return f"answers another question ({model} on {sources[0] if sources else 'no raster'}{more})"


def _tidy(path: Path, keys: list[str]) -> None:
    """Remove the journal of a scan that was killed between writing its output and tidying up.

    keys : of the rasters in it. Another scan's journal stays.
    """
    place = journal_path(path)
    if not place.exists():
        return
    try:
        journal = Journal(place)
    except UserError:
        return  # in use, or not ours
    if journal.is_of(keys):
        journal.discard()
    else:
        journal.close()

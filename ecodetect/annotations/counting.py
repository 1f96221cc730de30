"""Which of all annotations are individuals to learn: each once, in one spelling, on ground that counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ecodetect import matching
from ecodetect.annotations.agreement import agreed, are_individuals, means_one_of, without_repeated
from ecodetect.annotations.annotated_raster import AnnotatedRaster
from ecodetect.annotations.ignoring import check_labels, is_file
from ecodetect.annotations.laying import Annotations
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.errors import UserError
from ecodetect.notes import Note


def counted(
    sources: list[AnnotatedRaster], asked: AnnotationOptions, notes: list[Note]
) -> list[AnnotatedRaster]:
    """Sources in which what doesn't count is ignored.  notes : to which is added what was, and why."""
    sources = _in_one_spelling(sources, asked, notes)
    sources = _without_ignored_classes(sources, asked, notes)
    sources = _each_once(sources, notes)
    sources = _with_one_class_for_names(sources, asked, notes)
    sources = _without_ignored_ground(sources, notes)
    return _inside_complete(sources, notes)


def _in_one_spelling(
    sources: list[AnnotatedRaster], asked: AnnotationOptions, notes: list[Note]
) -> list[AnnotatedRaster]:
    """Sources whose annotations have their classes from one column and in one spelling."""
    made, said = agreed(
        [source.annotations for source in sources],
        [source.file for source in sources],
        column=asked.class_column,
        keep_spelling=asked.keep_spelling,
    )
    notes += said
    return _with_annotations(sources, made)


def _each_once(sources: list[AnnotatedRaster], notes: list[Note]) -> list[AnnotatedRaster]:
    """Sources with each individual once."""
    made, said = without_repeated(
        [source.annotations for source in sources], [source.file for source in sources]
    )
    notes += said
    return _with_annotations(sources, made)


def _with_annotations(sources: list[AnnotatedRaster], made: Sequence[Annotations]) -> list[AnnotatedRaster]:
    return [replace(source, annotations=each) for source, each in zip(sources, made, strict=True)]


def _without_ignored_classes(
    sources: list[AnnotatedRaster], asked: AnnotationOptions, notes: list[Note]
) -> list[AnnotatedRaster]:
    """Annotations of an ignored class, and those without a class where others have one, are ignored."""
    classes = [text for text in asked.ignore if not is_file(text)]
    labels = Counter(str(label) for source in sources for label in source.annotations.label)
    check_labels(classes, labels, keep_spelling=asked.keep_spelling)
    drop = {*classes, ""} if any(labels.keys() - {""}) else set(classes)
    if "" in drop and labels[""]:
        text = f"Ignored, without a class: {labels['']} of {labels.total()} annotations."
        notes.append(Note("class-missing", text, kind="doubt"))
    if not drop:
        return sources
    made = []
    for source in sources:
        marked = source.annotations
        ignore = marked.ignore | means_one_of(marked.label, drop, keep_spelling=asked.keep_spelling)
        made.append(replace(marked, ignore=ignore))
    return _with_annotations(sources, made)


def _with_one_class_for_names(
    sources: list[AnnotatedRaster], asked: AnnotationOptions, notes: list[Note]
) -> list[AnnotatedRaster]:
    """One class for all where a guessed column holds names of individuals, not classes."""
    labels = Counter(str(label) for source in sources for label in source.annotations.label[source.kept])
    total, many = labels.total(), len(labels)
    if asked.class_column is not None or not are_individuals(labels):
        return sources
    text = (
        f"{many} different names for {total} annotations can't be classes: all are taken as one; say which"
        " column has the class."
    )
    notes[:] = [note for note in notes if note.code != "class-column"]
    notes.append(Note("classes-as-one", text, kind="doubt", parameter="class_column"))
    marked = [source.annotations for source in sources]
    one = [replace(each, label=np.full(len(each), "object", dtype=object)) for each in marked]
    return _each_once(_with_annotations(sources, one), notes)


def _without_ignored_ground(sources: list[AnnotatedRaster], notes: list[Note]) -> list[AnnotatedRaster]:
    """Ignore annotations that lie in shapes to ignore, as `evaluate` does."""
    inside = [matching.centred_in(each.annotations.geometry, each.ignored) for each in sources]
    count = sum(int((each.kept & rows).sum()) for each, rows in zip(sources, inside, strict=True))
    if not count:
        return sources
    total = sum(int(each.kept.sum()) for each in sources)
    text = f"{count} of {total} annotations lie in shapes to ignore and aren't learned from."
    notes.append(Note("inside-ignored", text, kind="choice", parameter="ignore"))
    return [
        replace(each, annotations=replace(each.annotations, ignore=each.annotations.ignore | rows))
        for each, rows in zip(sources, inside, strict=True)
    ]


def _inside_complete(sources: list[AnnotatedRaster], notes: list[Note]) -> list[AnnotatedRaster]:
    """Annotations outside the polygons in which annotation is complete are ignored, as `evaluate` does.

    Raises UserError where none is left.
    """
    made: list[AnnotatedRaster] = []
    outside, total = 0, 0
    for source in sources:
        if source.complete_by == "polygons":
            inside = np.zeros(len(source.annotations), np.bool_)
            if source.complete is not None:
                inside = source.complete.contains(source.xy)
            total += int(source.kept.sum())
            outside += int((source.kept & ~inside).sum())
            ignore = source.annotations.ignore | ~inside
            source = replace(source, annotations=replace(source.annotations, ignore=ignore))
        made.append(source)
    if outside and outside == total == sum(int(source.kept.sum()) for source in sources):
        raise UserError(
            f"None of the {total} annotations lies inside the polygons of complete annotation; do they"
            " belong together?",
            parameter="complete",
        )
    if outside:
        text = (
            f"{outside} of {total} annotations lie outside the polygons of complete annotation and aren't"
            " learned from."
        )
        notes.append(Note("outside-complete", text, kind="choice", parameter="complete"))
    return made

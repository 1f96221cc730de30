"""What annotations of all images have in common: one column of classes, one spelling, each individual once.

Each image's annotations come from `annotations`; here they are looked at together, since images of one survey
must not differ in what they take as the class. `check`, `train` and `evaluate` ask here, so that they count
the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ecodetect.annotations.class_names import joined, key
from ecodetect.annotations.duplicates import repeated
from ecodetect.annotations.laying import Annotations
from ecodetect.formats.column_roles import (
    class_column,
    class_names,
    classes_in,
    score_column,
    scores,
    text_columns,
)
from ecodetect.notes import Note

_MOST_LISTED = 6
_MOST_GUESSED_CLASSES = 50  # with more names, a column that the user didn't choose holds names of individuals
_TWICE = "on another one of the same class"


def agreed(
    marked: Sequence[Annotations],
    files: Sequence[str],
    *,
    column: str | None = None,
    keep_spelling: bool = False,
    can_choose: bool = True,
) -> tuple[list[Annotations], tuple[Note, ...]]:
    """Annotations of all images with their classes from the same column, each in one spelling.

    What somebody drew into a layer of ours has no value in any of our columns: it is of the layer's class
    where there is only one, else of unknown class ("").

    files : name of the file that each is from.
    column : the one that the user names; None: found by its name.
    keep_spelling : leave classes as they are written.
    can_choose : whether the user could name another column.
    """
    notes: list[Note] = []
    made = list(marked)
    if column is None:
        made = _of_one_column(made)
        notes += _columns_said(made, files, can_choose=can_choose)
    labels, said = joined([each.label for each in made], keep_spelling=keep_spelling)
    notes += [note.of(_about(files)) for note in said]
    classes = Counter(str(name) for each in labels for name in each.tolist())
    drawn = [_are_drawn_by_hand(each) & (label == "") for each, label in zip(made, labels, strict=True)]
    count = sum(int(np.count_nonzero(rows)) for rows in drawn)
    known = sorted(classes.keys() - {""})
    if count and known:
        features = "1 feature was" if count == 1 else f"{count:,} features were"
        text = f"{features} drawn into it without a class: "
        if len(known) == 1:
            labels = [np.where(rows, known[0], each) for rows, each in zip(drawn, labels, strict=True)]
            text += f"taken as {known[0]}, its only one."
        else:
            text += f"unknown, as it has {len(known)}; not learned, and compared by place alone."
        notes.append(Note("drawn-by-hand", text, about=_about(files), kind="choice"))
    return [replace(each, label=label) for each, label in zip(made, labels, strict=True)], tuple(notes)


def without_repeated(
    marked: Sequence[Annotations], files: Sequence[str]
) -> tuple[list[Annotations], tuple[Note, ...]]:
    """Annotations with each individual once, and what to say of those that were there twice.

    What is ignored is neither counted nor compared.
    """
    made, twice, other, total = [], 0, 0, 0
    for each in marked:
        rows = _repeated(each)
        count = int(np.count_nonzero(rows))
        twice, total = twice + count, total + len(each)
        if count:
            dropped = {**each.dropped, _TWICE: each.dropped.get(_TWICE, 0) + count}
            each = replace(each[~rows], dropped=dropped)
        other += int(np.count_nonzero(_repeated(each, of_any_class=True)))
        made.append(each)
    notes = []
    if twice:
        lie = "annotation lies" if twice == 1 else "annotations lie"
        text = f"{twice:,} of {total:,} {lie} {_TWICE} (same place and size) and count once."
        notes.append(Note("annotations-repeated", text, about=_about(files), kind="doubt"))
    if other:
        lie = "annotation lies" if other == 1 else "annotations lie"
        text = f"{other:,} {lie} on another one of another class (same place and size); both count."
        notes.append(Note("classes-coincide", text, about=_about(files), kind="doubt"))
    return made, tuple(notes)


def repeated_said(found: Sequence[Annotations], files: Sequence[str]) -> tuple[Note, ...]:
    """What to say of detections that are there twice: they all count, for they are the detector's."""
    count = sum(int(np.count_nonzero(_repeated(each))) for each in found)
    if not count:
        return ()
    lie = "detection lies" if count == 1 else "detections lie"
    text = (
        f"{count:,} of {sum(map(len, found)):,} {lie} {_TWICE} (same place and size) and can only be false;"
        " was a layer pasted twice?"
    )
    return (Note("detections-repeated", text, about=_about(files), kind="doubt"),)


def score_said(found: Sequence[Annotations], files: Sequence[str]) -> tuple[Note, ...]:
    """Which column the scores of detections are, where its name leaves room for doubt."""
    names = {score_column(each.columns) for each in found} - {None, "score"}
    if not names:
        return ()
    text = f"the score is that of column {' or '.join(sorted(filter(None, names)))}."
    return (Note("score-column", text, about=_about(files), kind="choice"),)


def are_individuals(labels: Counter[str]) -> bool:
    """Whether names in a guessed column are those of individuals: by how often each comes."""
    return len(labels) > 2 and (len(labels) > _MOST_GUESSED_CLASSES or 2 * len(labels) > labels.total())


def means_one_of(
    labels: NDArray[np.object_], names: Iterable[str], *, keep_spelling: bool
) -> NDArray[np.bool_]:
    """Which labels are one of some classes, however these are written, (N,)."""
    wanted = set(names)
    keys = set() if keep_spelling else {key(name) for name in wanted}
    meant = {name: name in wanted or key(name) in keys for name in set(labels.tolist())}
    return np.array([meant[name] for name in labels.tolist()], np.bool_)


def _repeated(some: Annotations, *, of_any_class: bool = False) -> NDArray[np.bool_]:
    rows = np.flatnonzero(~some.ignore)
    found = np.zeros(len(some), np.bool_)
    label = some.label[rows]
    found[rows] = repeated(
        some.xy[rows], some.size_px[rows], np.full_like(label, "") if of_any_class else label
    )
    return found


# -- columns -----------------------------------------------------------------------------------------------


def _of_one_column(marked: list[Annotations]) -> list[Annotations]:
    """Images with the same columns take the class from the same one, chosen from the values of all."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for row, each in enumerate(marked):
        groups.setdefault(tuple(each.columns), []).append(row)
    for rows in groups.values():
        chosen = {class_column(marked[row].columns) for row in rows}
        if len(chosen) < 2:
            continue
        names = [name for name in chosen if name is not None]
        together = {
            name: np.concatenate([marked[row].columns[name].astype(object) for row in rows]) for name in names
        }
        best = class_column({name: together[name] for name in marked[rows[0]].columns if name in together})
        if best is None:
            continue
        for row in rows:
            marked[row] = replace(marked[row], label=_classes(marked[row], best))
    return marked


def _columns_said(marked: Sequence[Annotations], files: Sequence[str], *, can_choose: bool) -> list[Note]:
    """Which columns hold the class, if their name leaves room for doubt, and which other texts there are."""
    taken: dict[str, set[str]] = {}
    others: dict[str, set[str]] = {}
    for each in marked:
        column = class_column(each.columns)
        if column is not None:
            taken.setdefault(column, set()).update(filter(None, _classes(each, column).tolist()))
        for name in text_columns(each.columns, without=(column,)):
            others.setdefault(name, set()).update(filter(None, class_names(each.columns[name]).tolist()))
    if not others and taken.keys() <= {"label"}:
        return []
    listed = [f"{name} ({_values(len(values))})" for name, values in others.items()]
    more = f" and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else ""
    shown = ", ".join(listed[:_MOST_LISTED]) + more
    if taken:
        text = "the class is that of " + " or ".join(
            f"column {name} ({_values(len(values))})" for name, values in taken.items()
        )
        text += f"; not used: {shown}" if others else ""
        remedy = "if another has the class, name it"
    else:
        text = f"no column is taken as the class; texts are in {shown}"
        remedy = "if one has the class, name it"
    text += f"; {remedy}." if can_choose else "."
    parameter = "class_column" if can_choose else None
    return [Note("class-column", text, about=_about(files), kind="choice", parameter=parameter)]


def _classes(some: Annotations, column: str) -> NDArray[np.object_]:
    return classes_in(some.columns, column, are_stated=some.states_classes)


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count:,} values"


def _about(files: Sequence[str]) -> str:
    """One file, or the first of several, as `notes.merged` says it."""
    names = list(dict.fromkeys(files))
    if len(names) > 1:
        return f"{names[0]} and {len(names) - 1} more"
    return names[0] if names else ""


def _are_drawn_by_hand(some: Annotations) -> NDArray[np.bool_]:
    """Features without any value in a layer that ecodetect wrote: they were drawn in a GIS, (N,)."""
    columns = some.columns
    if not {"id", "label", "score"} <= columns.keys():
        return np.zeros(len(some), np.bool_)
    empty = ~np.isfinite(scores(columns["score"]))
    for name in ("id", "label"):
        empty &= class_names(columns[name]) == ""
    return np.asarray(empty, np.bool_)

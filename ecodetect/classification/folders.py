"""A species for each picture of a folder, and the accuracy: what `ecodetect classify FOLDER` does.

Pictures are read as in training: a classifier trained on pictures in folders by class gets them whole, at one
size; a classifier trained on rasters gets a window around the middle, at its GSD.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecodetect.annotations.annotated_raster import AnnotatedRaster
from ecodetect.annotations.class_folders import ClassPictures, picture, pictures
from ecodetect.annotations.class_names import key
from ecodetect.annotations.contract import Contract
from ecodetect.annotations.dataset import Dataset
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.bundle.value_survey import Companions, choice_of, seen_unit, survey
from ecodetect.bundle.values import Measured, ValueUnit, doubts, remarks
from ecodetect.classification.accuracy import ClassificationReport, judge
from ecodetect.classification.answering import (
    Answers,
    ClassifierEnsemble,
    Member,
    Sight,
)
from ecodetect.classification.settings import ClassifyingSettings
from ecodetect.detectors.window_networks import options_of
from ecodetect.errors import UserError, already_there
from ecodetect.formats.tables.spreadsheet import as_cell
from ecodetect.notes import Note, merged
from ecodetect.pictures.thumbnails import Thumbnail, draw_thumbnails
from ecodetect.raster.bands import stand_ins
from ecodetect.raster.finding import expand
from ecodetect.raster.options import RasterOptions
from ecodetect.whole_file import write_whole

_AT_ONCE = 128  # pictures per batch
_LOOKED_AT = 64  # pictures whose values are checked first


@dataclass(frozen=True, eq=False, slots=True)
class PictureAnswers:
    """The answers for the pictures of a folder.

    folder : of the pictures.  paths : N pictures, sorted by class and name.
    truth : (N,), their classes; None unless they are in folders by class.
    answers : of the classifier.  top : number of answers per picture.
    judged : answers compared with the truth; None without it.
    options : how the pictures were opened.
    notes : for the user.
    """

    folder: Path
    paths: tuple[Path, ...]
    truth: NDArray[np.object_] | None
    answers: Answers
    top: int
    judged: ClassificationReport | None
    models: Mapping[str, Any]
    options: RasterOptions
    notes: tuple[Note, ...]

    @property
    def names(self) -> list[str]:
        """Paths of the pictures relative to their folder."""
        return [
            path.relative_to(self.folder).as_posix() if self.folder in path.parents else str(path)
            for path in self.paths
        ]

    def rows(self) -> Iterator[dict[str, str]]:
        """image, truth (if known), species, species_score, … of each picture."""
        columns = self.answers.columns(self.top)
        for row, name in enumerate(self.names):
            truth = {} if self.truth is None else {"truth": str(self.truth[row])}
            said = {
                column: str(values[row]) if values.dtype.kind == "O" else f"{values[row]:.4f}"
                for column, values in columns.items()
            }
            yield {"image": name, **truth, **said}

    def csv_lines(self, shown: Callable[[str], str] = str) -> Iterator[str]:
        """The rows as CSV, with a header.  shown : converts texts first."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        rows = self.rows()
        first = next(rows)
        for cells in (list(first), first.values(), *(row.values() for row in rows)):
            writer.writerow([as_cell(shown(cell)) for cell in cells])
            yield text.getvalue()[:-1]
            text.seek(0)
            text.truncate()

    def to_csv(self) -> str:
        """The rows as CSV."""
        return "".join(f"{line}\n" for line in self.csv_lines())

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the rows as CSV, whole or not at all; see `writable`."""
        try:
            content = self.to_csv().encode(errors="backslashreplace")
            write_whole(Path(path), content, replace=overwrite)
        except OSError as error:
            raise UserError(f"{path} can't be written: {error.strerror or error}.") from error

    def draw_errors(self, path: str | os.PathLike[str], *, most: int = 60) -> None:
        """Draw misclassified pictures with truth and answer, highest scores first, into a PNG or JPEG.

        Raises UserError where there is no truth.
        """
        if self.truth is None:
            raise UserError(
                f"A sheet shows what is wrong, but no folders of {self.folder} say what is right.",
                parameter="sheet",
            )
        first = self.answers.first()
        sure = self.answers.score[np.arange(len(first)), self.answers.ranked()[:, 0]]
        wrong = np.flatnonzero((first != self.truth) & self.answers.known)
        chosen = wrong[np.argsort(-sure[wrong], kind="stable")][:most]
        shown = [
            Thumbnail(
                self.paths[row],
                (f"is {self.truth[row]}", f"taken for {first[row]} {sure[row]:.2f}", self.paths[row].name),
            )
            for row in chosen.tolist()
        ]
        heading = f"{len(wrong):,} of {len(first):,} pictures misclassified" + (
            f"; the {len(shown)} surest" if len(shown) < len(wrong) else ", surest first" * bool(shown)
        )
        title = self.folder.name or str(self.folder)
        draw_thumbnails(shown, path, title=title, heading=heading, options=self.options)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: the figures, if the truth is known, and each answer."""
        figures = {} if self.judged is None else self.judged.to_dict()
        return {
            **self.models,
            **figures,
            "pictures": list(self.rows()),
            "notes": [note.to_json() for note in self.notes],
        }


def _as_known(by_class: Mapping[str, list[Path]], names: Sequence[str]) -> dict[str, list[Path]]:
    """Pictures by class, in the classifier's spelling where folders differ only in case or blanks."""
    spelt = {key(name): name for name in reversed(names)}
    found: dict[str, list[Path]] = {}
    for name, paths in by_class.items():
        found.setdefault(name if name in names else spelt.get(key(name), name), []).extend(paths)
    return found


def answer_pictures(
    folder: str | os.PathLike[str],
    models: Sequence[str | os.PathLike[str]],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **settings: Any,
) -> PictureAnswers:
    """Classify the pictures of a folder; in folders by class, also judge the answers.

    folder : pictures in folders by class (also in its `train`, `val`, `test`), or any pictures, or one.
    models : as in `layers.classify`.
    progress : called with the number of finished pictures and of all, for each member.
    settings : the fields of `ClassifyingSettings`.
    Raises UserError, in one sentence: no picture, one that can't be read or lacks bands, a class that the
    classifier doesn't have.
    """
    place = Path(folder)
    if not place.exists():
        raise UserError(f"There is no folder {folder}.")
    how = ClassifyingSettings(**settings)
    by_class = pictures(place)
    classifier = how.classifier(models)
    count = classifier.top(how.top)
    by_class = _as_known(by_class, classifier.names)
    unknown = sorted(set(by_class) - set(classifier.names))
    if unknown:
        raise UserError(
            f"{folder} has pictures of '{unknown[0]}', which '{classifier.members[0].card.name}' doesn't"
            f" know; it knows {', '.join(classifier.names)}."
        )
    named = [(path, name) for name, paths in by_class.items() for path in paths]
    named = named or [(Path(path), "") for path in expand([place])]
    paths = tuple(path for path, _ in named)
    asked = AnnotationOptions(
        bands=how.bands, gsd_m=how.gsd_m, nodata=how.nodata, allow_vrt=how.allow_vrt, values=how.values
    )
    companions = beside(paths, asked)
    notes = list(_said_of_values(classifier, place.name or str(folder), paths, asked, companions))
    answers = _answered(classifier, named, asked, companions, progress)
    notes += _doubts(place, str(folder), paths if by_class else (), answers)
    truth, judged = None, None
    if by_class:
        truth = np.array([name for _, name in named], dtype=object)
        judged = _judged(truth, answers, count)
    folder_of = place if place.is_dir() else place.parent
    return PictureAnswers(
        folder_of,
        paths,
        truth,
        answers,
        count,
        judged,
        classifier.described(),
        asked,
        tuple(notes),
    )


def _doubts(place: Path, folder: str, by_class: Sequence[Path], answers: Answers) -> Iterator[Note]:
    """Doubts about the answers.  by_class : pictures with a known class."""
    parts = sorted({path.parent.parent.name for path in by_class if path.parent.parent != place})
    if parts:
        text = (
            f"it has parts ({', '.join(parts)}), judged together; what a classifier learned from judges it"
            f" too well, so give one part: {place / parts[-1]}."
        )
        yield Note("parts-together", text, about=folder, kind="doubt")
    blank = int(np.count_nonzero(~answers.known))
    if blank:
        text = f"{blank} of {len(answers.known)} pictures have no data: they get no answer and aren't judged."
        yield Note("nothing-to-see", text, kind="doubt")


def _judged(truth: NDArray[np.object_], answers: Answers, top: int) -> ClassificationReport:
    """The answers compared with the classes of the pictures, (N,)."""
    seen = answers.known
    ranked = answers.ranked()[seen]
    number = {name: k for k, name in enumerate(answers.names)}
    right = np.array([number[name] for name in truth[seen]], np.int64)
    sure = answers.score[seen][np.arange(len(ranked)), ranked[:, 0]].astype(np.float64)
    return judge(answers.names, right, ranked, sure, top=top)


def beside(paths: Sequence[Path], asked: AnnotationOptions) -> Companions:
    """Pictures that share a unit: all of one run, of any class."""
    return Companions([str(path) for path in paths], asked.opened, is_one_folder=True)


def _said_of_values(
    classifier: ClassifierEnsemble,
    folder: str,
    paths: Sequence[Path],
    asked: AnnotationOptions,
    companions: Companions,
) -> tuple[Note, ...]:
    """Notes about the values of some pictures, of all classes, before models see them.

    One picture rarely has the quartiles of many, so pictures of one unit are compared together.
    """
    notes: list[Note] = []
    for member in classifier.members:
        card = member.card
        together: dict[ValueUnit | None, list[Measured]] = {}
        for path in paths[:: -(-len(paths) // _LOOKED_AT)]:
            with asked.opened(path) as raster:
                choice, _ = seen_unit(card, raster, stated=asked.values, companions=companions)
                notes += remarks(raster.name, card, choice, None)
                bands = stand_ins(card.bands, raster.bands)
                if bands is not None and card.learned is not None:
                    unit = None if choice is None else choice.unit
                    together.setdefault(unit, []).append(survey(raster, bands))
        for unit, found in together.items():
            parts = tuple(part for each in found for part in each.parts)
            notes += doubts(folder, card, unit, replace(found[0], parts=parts))
    return merged(notes)


def _answered(
    classifier: ClassifierEnsemble,
    named: Sequence[tuple[Path, str]],
    asked: AnnotationOptions,
    companions: Companions,
    progress: Callable[[int, int], None],
) -> Answers:
    known = np.zeros(len(named), np.bool_)
    parts = []
    done, total = 0, len(named) * len(classifier.members)
    for member in classifier.members:
        found = []
        for start in range(0, len(named), _AT_ONCE):
            some = named[start : start + _AT_ONCE]
            images, seen = images_of(member, some, asked, companions)
            found.append(member.probability(images))
            known[start : start + len(some)] |= seen
            done += len(some)
            progress(done, total)
        parts.append(np.concatenate(found))
    return classifier.together(parts, known)


def images_of(
    member: Member,
    named: Sequence[tuple[Path, str]],
    asked: AnnotationOptions,
    companions: Companions | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Pictures as a member's input, (n, B, S, S), and whether each has data (n,).

    named : pictures with their classes, which may be "".
    companions : that share a unit with them; None: each is judged alone.
    """
    if not options_of(member.card).patches:
        seen = [_middle(member, path, asked, companions) for path, _ in named]
        return np.stack([image for image, _ in seen]), np.array([there for _, there in seen], np.bool_)
    sources = [_with_unit(member, picture(path, name, asked), asked, companions) for path, name in named]
    ground = Dataset(sources, Contract.of(member.card))
    try:
        whole = ClassPictures(ground, member.side)
        s = member.shift  # crops off the middle are padded by reflection, like rotated ones in training
        around = [(0, 0), (s, s), (s, s)]
        images = [np.pad(whole.image(row), around, mode="symmetric") for row in range(len(named))]
    finally:
        ground.close()
    return np.stack(images), np.ones(len(images), np.bool_)


def _with_unit(
    member: Member, source: AnnotatedRaster, asked: AnnotationOptions, companions: Companions | None
) -> AnnotatedRaster:
    with source.open() as raster:
        unit, _ = choice_of(raster, member.card.bands, stated=asked.values, companions=companions)
    return replace(source, unit=unit)


def _middle(
    member: Member, path: Path, asked: AnnotationOptions, companions: Companions | None
) -> tuple[NDArray[np.float32], bool]:
    """The window around the middle of a picture, and whether it has data."""
    with asked.opened(path) as raster:
        middle = np.array([[raster.grid.width / 2, raster.grid.height / 2]])
        ((_, images, seen),) = Sight.of(member, raster, asked.values, companions).windows(raster, middle)
    return images[0], bool(seen[0])


def writable(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise UserError, before work starts, where a table of answers can't be written."""
    target = Path(path)
    if target.suffix.lower() != ".csv":
        raise UserError(f"{target} must end in .csv: answers about pictures are a table.")
    if not target.parent.is_dir():
        raise UserError(f"{target} can't be written: there is no folder {target.parent}; make it first.")
    if target.exists() and not overwrite:
        raise already_there(target)

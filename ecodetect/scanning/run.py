"""The scan of the rasters of one output, with its journal and everything that is written."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ecodetect.classification.answering import (
    check_fits,
    open_classifier,
    read_classifiers,
    said_of_values,
)
from ecodetect.errors import Interrupted, NetworkError, PackageError, UserError
from ecodetect.notes import Note
from ecodetect.raster.reading import Raster
from ecodetect.scanning import journal_file
from ecodetect.scanning.drawing import draw
from ecodetect.scanning.journal import Journal
from ecodetect.scanning.overlaps import overlap_note
from ecodetect.scanning.process_memory import one_heap
from ecodetect.scanning.question import ScanPlan, prepare
from ecodetect.scanning.results import Summary, check_frames, classifier_facts, write_results, write_scores
from ecodetect.scanning.searching import Progress, entered, search
from ecodetect.scanning.settings import Output, Settings
from ecodetect.scanning.verification import verify


class Run:
    """A context, so that the journal is closed whatever happens.

    plans : of the searched rasters.
    failures : of the others.
    journal : of the results.
    is_outrun : nothing was searched, because another process has written the output in between.
    """

    def __init__(
        self,
        images: Sequence[str],
        asked: Settings,
        output: Output,
        out: Path | None,
        journal: Path,
        progress: Progress | None = None,
    ) -> None:
        """out : the file that is to be written, which decides what it can hold; None: none."""
        self.plans: list[ScanPlan] = []
        self.failures: list[tuple[str, UserError]] = []
        self.is_outrun = False
        self._images, self._asked, self._output, self._out = images, asked, output, out
        self._path, self._progress = journal, progress
        self._started = time.monotonic()
        self._is_new = out is not None and not os.path.lexists(out)
        self._resumed = self._is_written = False
        self._shares: list[tuple[float, int]] = []
        if output.restart and journal.exists():
            lock = journal_file.held(journal, any_schema=True)  # other programs' files stay
            journal_file.remove(journal)
            os.close(lock)

    def __enter__(self) -> Run:
        if len(self._images) > 1:
            self._check_frames()
        self.journal = Journal(self._path)
        self._process = ExitStack()
        self._process.enter_context(one_heap())
        try:
            self.is_outrun = self._is_new and self._out is not None and self._out.exists()
            for image in () if self.is_outrun else self._images:
                self._search(image)
            if len(self._images) == 1 and self.plans:
                self.journal.forget_all_but([plan.number for plan in self.plans])
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._is_written or self.journal.is_blank:
            self.journal.discard()
        else:
            self.journal.close()
        self._process.close()
        if isinstance(error, KeyboardInterrupt) and self._out is not None:
            kept = f"finished work is kept in {self._path}: " if self._path.exists() else ""
            raise Interrupted(f"Stopped; {kept}run the same command again to go on.") from error

    def _check_frames(self) -> None:
        """Refuse, before any search, rasters that one layer can't hold together."""
        grids = {}
        for image in self._images:
            try:
                with self._asked.opened(image) as raster:
                    grids[raster.path] = raster.grid
            except UserError:
                continue  # said when its turn comes
        if self._out is not None and grids:
            check_frames(grids, self._out)

    def _search(self, image: str) -> None:
        try:
            with self._asked.opened(image) as raster:
                if self._out is not None:
                    check_frames({raster.path: raster.grid}, self._out)
                plan = entered(prepared(raster, self._asked, self._output), self.journal, self._asked)
                self._resumed |= search(plan, raster, self.journal, self._progress)
                if self._output.verified:
                    self._shares.append(verify(plan, raster, self.journal))
                self._check_unchanged(raster, plan.number)
                self.plans.append(plan)
        except PackageError:
            raise
        except UserError as error:
            if not self.journal.is_blank and len(self._images) == 1:
                error = type(error)(f"{str(error).rstrip('.')}; finished work is kept in {self._path}.")
            self.failures.append((image, error))

    def _check_unchanged(self, raster: Raster, number: int) -> None:
        """Raise RasterError, and drop the results, where the raster was written to during the scan."""
        try:
            raster.check_unchanged(raster.state)
        except NetworkError:
            raise  # it may be what it was
        except UserError:
            self.journal.forget(number)
            raise

    def finish(self, path: Path, *, replaces_map: bool = False) -> Summary:
        """Write all requested outputs: the map of scores, the layer, its pictures.

        path : of the layer.  replaces_map : overwrite an existing map.
        """
        self.write_map(replaces=replaces_map)
        summary = self._write_layer(path)
        if self._output.picture or self._output.sheet:
            (plan,) = self.plans
            with self._asked.opened(plan.image) as raster:
                raster.check_unchanged(plan.state)
                draw(raster, self._asked, self._output, path, plan.detector.classes, plan.layout.cache_bytes)
        return replace(summary, seconds=self.seconds, score_map=self._output.map_path)

    @property
    def seconds(self) -> float:
        """Since it was begun."""
        return time.monotonic() - self._started

    def write_map(self, *, replaces: bool, is_all: bool = False) -> None:
        """Write the map of scores of the only raster, if requested.

        replaces : overwrite an existing file.  is_all : nothing else is written, so the journal can go.
        """
        path = self._output.map_path
        if path is not None:
            (plan,) = self.plans
            write_scores(plan, self.journal, path, self._asked, self._progress, replace=replaces)
            self._is_written = is_all

    def _write_layer(self, path: Path) -> Summary:
        """Write the surviving detections of all rasters, then remove the journal."""
        classify = self._output.classify
        classifier = open_classifier(classify, device=self._asked.device) if classify else None
        # A file that has appeared there in between is kept under another name.
        summary = write_results(
            self.plans,
            self.journal,
            path,
            self._asked,
            self._output,
            classifier,
            keep_any=self._is_new,
        )
        self._is_written = True
        overlapping = overlap_note([plan.footprint for plan in self.plans])
        notes = (*self._lost(), *summary.notes, *([] if overlapping is None else [overlapping]))
        return replace(summary, resumed=self._resumed, verified=self._found_again(), notes=notes)

    def _found_again(self) -> tuple[float, int] | None:
        """The share over all rasters, and the number of detections; None if not requested."""
        if not self._shares:
            return None
        n = sum(count for _, count in self._shares)
        return (sum(part * count for part, count in self._shares) / n if n else 1.0), n

    def _lost(self) -> list[Note]:
        """A note on parts of the journal whose raster is unknown, because its entry is damaged."""
        if not self.journal.lost:
            return []
        text = f"{self.journal.lost:,} finished parts are damaged and are searched again."
        return [Note("journal-damaged", text, about=self._path.name)]


def prepared(raster: Raster, asked: Settings, output: Output) -> ScanPlan:
    """The prepared plan, with notes from the classifiers."""
    bundles = read_classifiers(output.classify)
    check_fits(bundles, raster)
    plan = prepare(raster, asked, is_mapped=output.score_map is not None)
    said = said_of_values(bundles, raster, asked.values, asked.companions)
    facts = tuple(classifier_facts(bundles, raster))
    return replace(plan, classifiers=facts, notes=(*plan.notes, *said))

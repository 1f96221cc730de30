"""From files and a few settings to a bundle; unset settings are derived from the data.

`train` prepares the case (`case`), builds a network or takes one from a bundle, plans (`planning`) and runs
the loop (`loop`), or trains a learner without a network (`without_network`). Then it writes the bundle
(`finishing`) and the training curves.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import shapely
import torch

from ecodetect.annotations.annotated_raster import AnnotatedRaster
from ecodetect.annotations.class_folders import DrawnPatches
from ecodetect.annotations.contract import Contract
from ecodetect.annotations.dataset import Statistics
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.annotations.splits import Split
from ecodetect.bundle import file as bundle
from ecodetect.bundle.file import Bundle
from ecodetect.cores import core_count
from ecodetect.detectors.learned import NetworkKind
from ecodetect.errors import Interrupted, UserError, already_there
from ecodetect.networks.network import TrainableNetwork
from ecodetect.notes import Note
from ecodetect.pictures.files import replaceable
from ecodetect.runtime import tracing
from ecodetect.training import (
    checkpoint,
    report,
    without_network,
)
from ecodetect.training.adapting import adapted
from ecodetect.training.augmentation import Augmentations
from ecodetect.training.case import Case, begin, check_card
from ecodetect.training.drawing import Drawn
from ecodetect.training.finishing import completed, finished, rejudged
from ecodetect.training.loop import Fitted, Progress, fit
from ecodetect.training.planning import Schedule, plan_for, weights_are_learned
from ecodetect.training.processes import Processes, joined
from ecodetect.training.settings import TrainingSettings
from ecodetect.wording import counted


@dataclass(frozen=True, eq=False, slots=True)
class Trained:
    """The result of a training.

    path : file of the bundle.  curves : file of the picture.
    fitted : rates and history.  verdict : what training and validation figures mean together.
    notes : all notes for the user.
    Without a network, curves and fitted are None.
    """

    path: Path
    curves: Path | None
    bundle: Bundle
    fitted: Fitted | None
    verdict: str
    notes: tuple[Note, ...]


def train(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    asked: AnnotationOptions | None = None,
    say: Callable[[Note], None] = lambda note: None,
    progress: Callable[[Progress], None] | None = None,
    **settings: Any,
) -> Trained:
    """Train a detector on annotated rasters and write it as a bundle.

    Parameters
    ----------
    paths : sequence of str or path-like
        One folder, or images and annotations in turn; see `annotations.sources.gather`. Annotations are in
        world coordinates of their CRS, or in pixels of their image (x right, y down).
    out : str or path-like
        The bundle, `*.safetensors`. The curves lie beside it, and during training a folder `*.training`.
    asked : AnnotationOptions, optional
        How to read the annotations.
    say, progress : callable, optional
        Called with each note, and after each step.
    settings : the fields of `TrainingSettings`.

    Returns
    -------
    Trained
        The same settings, data and seed give the same bytes on the CPU.

    Raises
    ------
    UserError
        In one sentence, when data can't be read, matched or trained on, or the bundle can't be written.
    Interrupted
        After Ctrl-C; `resume=True` continues the training.
    """
    how = TrainingSettings(**settings)
    target, folder = _places(out, how)
    curves = target.with_name(f"{target.stem}.curves.png")
    notes: list[Note] = []

    def tell(note: Note) -> None:
        notes.append(note)
        say(note)

    case = begin(paths, target.stem, asked, how, tell)
    torch.manual_seed(how.seed)
    if case.is_taught:
        done, verdict = _taught(case, how, tell)
        bundle.write(target, done, replace=how.overwrite)
        return Trained(target, None, done, None, verdict, tuple(notes))
    processes = joined(_device(how.device))
    with _resumable(folder):
        fitted, done = _fitted(case, how, folder, processes, tell, progress)
        case.close()
        if processes.leads:
            report.draw_curves(fitted.history, curves, title=target.stem)
            bundle.write(target, done, replace=how.overwrite)
            checkpoint.remove(folder)
    return Trained(target, curves, done, fitted, report.verdict(fitted, case.sides.method), tuple(notes))


def _fitted(
    case: Case,
    how: TrainingSettings,
    folder: Path,
    processes: Processes,
    tell: Callable[[Note], None],
    progress: Callable[[Progress], None] | None,
) -> tuple[Fitted, Bundle]:
    """The trained network, and its bundle with all that was measured."""
    kind = case.kind
    assert isinstance(kind, NetworkKind), "a kind without a network teaches a learner"
    check_card(case.card)
    network = starting_network(kind, case, how, tell)
    if how.backbone is not None:
        tracing.check(network, lambda: kind.network(case.card, None), case.card)
    plan = _planned(case, kind, network, how)
    tell(Note("training-plan", _described(case.statistics, case.sides, network, plan, case.made)))
    kept = checkpoint.Folder(folder, _fingerprint(case.gathered.sources), how.resume)
    data = _drawn(case, plan)
    fitted = fit(kind, network, case.card, data, plan, kept, processes=processes, progress=progress)
    return _finished(fitted, case, kind, network, plan)


def _places(out: str | os.PathLike[str], how: TrainingSettings) -> tuple[Path, Path]:
    """The path of the bundle, and the folder for unfinished training.

    Raises UserError where the bundle or its curves can't be written, or a training lies there unasked.
    """
    folder = Path(f"{os.fspath(out)}.training")
    if checkpoint.is_over(folder, Path(out)):
        checkpoint.remove(folder)
    is_resumed = how.resume and (folder / checkpoint.LAST).is_file()
    target = _writable(out, overwrite=how.overwrite or is_resumed)
    replaceable(target.with_name(f"{target.stem}.curves.png"), overwrite=how.overwrite)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()  # left by a run that was killed at its beginning or end
    if os.path.lexists(folder) and not how.resume:
        raise UserError(
            f"{folder} holds an unfinished training; remove the folder, or resume it.", parameter="resume"
        )
    return target, folder


def _finished(
    fitted: Fitted, case: Case, kind: NetworkKind, network: TrainableNetwork, plan: Schedule
) -> tuple[Fitted, Bundle]:
    """The fitted network, judged by what a scan finds, and its bundle."""
    grounds = case.grounds
    if kind.answers is not None:
        fitted = rejudged(fitted, kind.answers, *grounds)
    unit = case.made.unit if case.made.gsd is not None else "px"
    near = f"distance ≤ {plan.within_px * case.made.unit_per_px:.3g} {unit}, one to one"
    criterion = (kind.criterion or near) if case.statistics.sized else near
    return fitted, completed(finished(fitted, case, criterion), kind, network, *grounds)


def _taught(case: Case, how: TrainingSettings, say: Callable[[Note], None]) -> tuple[Bundle, str]:
    """The bundle of a learner trained on the case's ground, and the verdict."""
    kind, card, weights_of = case.kind, case.card, {}
    given: dict[str, Any] = {
        "freeze": how.freeze,
        "epochs": how.epochs,
        "within": how.within,
        "resume": how.resume,
    }
    if isinstance(kind, NetworkKind):
        found = starting_network(kind, case, how, say).state_dict()
        weights_of = {name: each.numpy() for name, each in found.items()}
    else:
        given = {**given, "backbone": how.backbone, "weights": how.weights}
    assert kind.taught is not None, "a card's head is a learner only where the kind teaches one"
    taught = kind.taught(card, weights_of)
    _check_taught(kind.name, case.start, given)
    check_card(card)
    grounds = case.grounds
    most = None if case.is_patches else without_network.MOST_PIECES
    chosen = without_network.learn(kind, taught, *grounds, card, how.seed, say, most_pieces=most)
    done = finished(chosen, case, kind.criterion or "")
    done = completed(done, kind, None, *grounds)
    case.close()
    return done, without_network.verdict(chosen, case.sides.method)


def _planned(case: Case, kind: NetworkKind, network: TrainableNetwork, how: TrainingSettings) -> Schedule:
    """The plan for the case, with the user's settings."""
    stages = len(network.stages())
    frozen = stages if how.freeze == "all" else how.freeze
    if frozen > stages:
        raise UserError(
            f"The encoder has {stages} stages, so {how.freeze} can't be frozen.", parameter="freeze"
        )
    from_weights = weights_are_learned(how.backbone, how.weights)
    side = kind.chip_px(case.card)
    plan = plan_for(case.statistics, case.card, case.start is not None, from_weights, how.epochs, side)
    if how.within is not None:
        own_px = 1.0 if case.made.unit == "m" else case.made.unit_per_px
        plan = replace(plan, within_px=how.within.pixels(_square(case.made), name="The distance") / own_px)
    return replace(
        plan,
        seed=how.seed,
        frozen=frozen,
        workers=how.workers or min(4, core_count()),
        augmentations=how.augmentations or Augmentations(**kind.augmentations),
    )


def _drawn(case: Case, plan: Schedule) -> Drawn | DrawnPatches:
    """The data that chips are drawn from."""
    read_px = math.ceil(plan.size_px * plan.augmentations.widening)
    if case.is_patches:
        return DrawnPatches(case.training, case.validation, plan.size_px, read_px)
    return Drawn(case.training, case.validation, read_px)


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Say after Ctrl-C how to resume; a folder without a checkpoint is removed."""
    try:
        yield
    except KeyboardInterrupt as error:
        if (folder / checkpoint.LAST).is_file():
            kept = f"training so far is kept in {folder}"
            raise Interrupted(f"Stopped; {kept}: resume it to continue.", parameter="resume") from error
        checkpoint.remove(folder)
        raise Interrupted("Stopped before anything was learned; the same command starts over.") from error


def _writable(out: str | os.PathLike[str], *, overwrite: bool) -> Path:
    target = Path(out)
    if target.suffix.lower() != ".safetensors":
        raise UserError(f"{target} must end in .safetensors, the format of models.")
    if not target.parent.is_dir():
        raise UserError(f"{target} can't be written: there is no folder {target.parent}.")
    if not os.access(target.parent, os.W_OK):  # otherwise it would fail after the training
        raise UserError(f"{target} can't be written: its folder is read-only; choose another one.")
    if target.exists() and not overwrite:
        raise already_there(target)
    return target


def _check_taught(kind: str, start: Bundle | None, given: Mapping[str, Any]) -> None:
    """Raise UserError for settings that only training a network can use."""
    if start is not None:
        raise UserError(
            f"'{start.card.name}' can't be trained further; train a new {kind}.", parameter="model"
        )
    for name, value in given.items():
        if value:
            raise UserError(
                f"{kind} trains no network here, so '{name}' has no effect; leave it out.", parameter=name
            )


def _device(asked: str) -> str:
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        raise UserError("There is no CUDA device here; use the CPU.", parameter="device")
    if asked == "mps" and not torch.backends.mps.is_available():
        raise UserError("There is no MPS device here; use the CPU.", parameter="device")
    return asked


def starting_network(
    kind: NetworkKind, case: Case, how: TrainingSettings, say: Callable[[Note], None]
) -> TrainableNetwork:
    """The network that training starts with."""
    card, start, backbone, weights = case.card, case.start, how.backbone, how.weights
    if start is not None:
        network = kind.network(card, None)
        for note in adapted(network, start, card):
            say(note)
        return network
    if backbone is None or weights == "none":
        return kind.network(card, None)
    from ecodetect.networks import backbones
    from ecodetect.networks.weights import from_file

    if weights in (None, "imagenet"):
        return kind.network(card, backbones.pretrained(backbone))
    if weights == "coco":
        return kind.network(card, backbones.pretrained(backbone, "coco"))
    return kind.network(card, from_file(str(weights)))


def _described(
    statistics: Statistics, sides: Split, network: TrainableNetwork, plan: Schedule, made: Contract
) -> str:
    weights = sum(each.numel() for each in network.parameters())
    gsd = f" at {made.gsd:g} {made.unit} per pixel" if made.gsd is not None and made.unit != "px" else ""
    return (
        f"{counted(statistics.objects, 'individual')} to train on and {sides.objects[1]:,} to validate with"
        f" ({sides.method}), bands {', '.join(made.bands)}{gsd}; {weights / 1e6:.2f} million weights, at most"
        f" {counted(plan.steps, 'step')} of {counted(plan.batch, 'chip')} of {plan.size_px} px."
    )


def _square(made: Contract) -> tuple[float, float] | None:
    """Metres per pixel of the network's input, along x and y."""
    return None if made.unit == "px" or made.gsd is None else (made.gsd, made.gsd)


def _fingerprint(sources: Sequence[AnnotatedRaster]) -> str:
    """A fingerprint of the data: another layer or raster size gives another one."""
    digest = hashlib.sha256()
    for source in sources:
        marked = source.annotations
        digest.update(f"{source.name} {source.grid.describe()} {source.bands}".encode())
        digest.update(b"".join(shapely.to_wkb(marked.geometry).tolist()))
        digest.update("\n".join(map(str, marked.label)).encode())
    return digest.hexdigest()

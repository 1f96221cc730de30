"""From files and a few wishes to a bundle: what a user doesn't say is derived from the data.

`train` settles the case (`case`), builds a network or takes one from a bundle, makes a plan (`planning`) and
runs the loop (`loop`), or teaches a learner without one (`without_network`); then it writes bundle
(`finishing`) and curves.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import shapely
import torch

from ecodetect.annotations.annotated_raster import AnnotatedRaster
from ecodetect.annotations.class_folders import DrawnPatches
from ecodetect.annotations.contract import Contract
from ecodetect.annotations.dataset import Statistics
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.annotations.splits import Split
from ecodetect.bundle import file as bundle
from ecodetect.bundle.file import Bundle, Card
from ecodetect.detectors.learned import NetworkKind
from ecodetect.errors import Interrupted, UserError, already_there
from ecodetect.networks.network import TrainableNetwork
from ecodetect.notes import Note
from ecodetect.pictures.files import replaceable
from ecodetect.sizes import Length
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
from ecodetect.training.loop import Fitted, Progress, Schedule, fit
from ecodetect.training.planning import plan_for, weights_are_learned
from ecodetect.training.processes import joined
from ecodetect.wording import counted


@dataclass(frozen=True, eq=False, slots=True)
class Trained:
    """What came of a training.

    path : of the bundle.  curves : of the picture.
    fitted : rates and history.  verdict : what figures of training and validation mean together.
    notes : all that was said, for the user.
    Without a network there are no curves and no history: None.
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
    model: str | None = None,
    asked: AnnotationOptions | None = None,
    backbone: str | None = None,
    weights: str | None = None,
    freeze: int | Literal["all"] = 0,
    split_by: str = "auto",
    gsd: float | None = None,
    epochs: int | None = None,
    within: Length | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    augmentations: Augmentations | None = None,
    settings: Mapping[str, str] | None = None,
    command: str = "",
    say: Callable[[Note], None] = lambda note: None,
    progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """Train a detector on annotated rasters and write it as a bundle.

    Parameters
    ----------
    paths : one folder, or images and annotations in turn; see `sources.gather`.
    out : str or path-like
        The bundle, `*.safetensors`. Beside it the curves, and until it is done a folder `*.training`.
    model : str, optional
        Kind of detector, or a bundle (file or name) to start from. If not given, a heat map that begins with
        what the nearest of the models that come with ecodetect has learned; see `nearest`.
    asked : AnnotationOptions, optional
        What else is said about the data.
    backbone, weights : str, optional
        Name of a torchvision network as encoder; "imagenet", "coco", "none" or a file of its weights.
    freeze : int or "all"
        Stages of the encoder that keep their weights, from the first.
    split_by : str
        "auto", "blocks", "files", "none", or a column; see `splits.split`.
    gsd : float, optional
        Metres per pixel at which the model works.
    epochs : int, optional
        Chosen from the data, with early stopping, if not given.
    within : Length, optional
        How far from its truth a detection of validation may lie; the radius of individuals, or half the way
        to their neighbours, if not given.
    seed : int
        Random seed: the same seed gives the same bytes on the CPU.
    device : str
        "auto", "cpu", "cuda" or "mps".
    workers : int, optional
        Threads that prepare chips.
    resume : bool
        Go on with an interrupted training.
    overwrite : bool
        Replace an existing bundle.
    augmentations : Augmentations, optional
        Other than the default.
    settings : mapping, optional
        Options of the detector's training, as name -> text; see its `Kind.training`.
    command : str
        What the card gives as the command.
    say, progress : callable, optional
        For notes while it runs, and after each step.

    Raises
    ------
    UserError
        In one sentence, when something can't be read, brought together or trained.
    """
    folder = Path(f"{os.fspath(out)}.training")
    if checkpoint.is_over(folder, Path(out)):
        checkpoint.remove(folder)
    target = _writable(out, overwrite=overwrite or (resume and (folder / checkpoint.LAST).is_file()))
    curves = target.with_name(f"{target.stem}.curves.png")
    replaceable(curves, overwrite=overwrite)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()  # of a run that was killed before it began, or at its very end
    if os.path.lexists(folder) and not resume:
        raise UserError(
            f"{folder} holds a training that wasn't finished; go on with --resume, or remove the folder."
        )
    notes: list[Note] = []

    def tell(note: Note) -> None:
        notes.append(note)
        say(note)

    case = begin(
        paths, target.stem, model, asked, backbone, weights, split_by, seed, gsd, settings, command, tell
    )
    torch.manual_seed(seed)
    kind = case.kind
    if case.is_taught:
        given = {"--freeze": freeze, "--epochs": epochs, "--within": within, "--resume": resume}
        done, verdict = _taught(case, backbone, weights, seed, given, tell)
        bundle.write(target, done, replace=overwrite)
        return Trained(target, None, done, None, verdict, tuple(notes))
    assert isinstance(kind, NetworkKind), "a kind without a network teaches a learner"
    check_card(case.card)
    network = _network(kind, case.card, case.start, backbone, weights, tell)
    plan = _planned(case, kind, network, weights_are_learned(backbone, weights), epochs, freeze, within)
    plan = replace(plan, seed=seed, workers=workers or min(4, os.cpu_count() or 1))
    if augmentations is not None:
        plan = replace(plan, augmentations=augmentations)
    tell(Note("training-plan", _described(case.statistics, case.sides, network, plan, case.made)))
    processes = joined(_device(device))
    with _resumable(folder):
        fitted = fit(
            kind,
            network,
            case.card,
            _drawn(case, plan),
            plan,
            folder=folder,
            processes=processes,
            resume=resume,
            key=_fingerprint(case.gathered.sources),
            progress=progress,
        )
        grounds = case.grounds
        if kind.answers is not None:
            fitted = rejudged(fitted, kind.answers, *grounds)
        unit = case.made.unit if case.made.gsd is not None else "px"
        near = f"distance ≤ {plan.within_px * case.made.unit_per_px:.3g} {unit}, one to one"
        criterion = (kind.criterion or near) if case.statistics.sized else near
        done = completed(finished(fitted, case, criterion), kind, network, *grounds)
        case.close()
        if processes.leads:
            report.draw_curves(fitted.history, curves, title=target.stem)
            bundle.write(target, done, replace=overwrite)
            checkpoint.remove(folder)
    verdict = report.verdict(fitted, case.sides.method)
    return Trained(target, curves, done, fitted, verdict, tuple(notes))


def _taught(
    case: Case,
    backbone: str | None,
    weights: str | None,
    seed: int,
    given: Mapping[str, Any],
    say: Callable[[Note], None],
) -> tuple[Bundle, str]:
    """The bundle of a learner taught on the case's ground, and the verdict.

    given : options that only a network that is trained can be told, and what was said.
    """
    kind, card, weights_of = case.kind, case.card, {}
    if isinstance(kind, NetworkKind):
        found = _network(kind, card, case.start, backbone, weights, say).state_dict()
        weights_of = {name: each.numpy() for name, each in found.items()}
    else:
        given = {**given, "--backbone": backbone, "--weights": weights}
    assert kind.taught is not None, "a card's head is a learner only where the kind teaches one"
    taught = kind.taught(card, weights_of)
    _check_taught(kind.name, case.start, given)
    check_card(card)
    grounds = case.grounds
    most = None if case.is_patches else without_network.MOST_PIECES
    chosen = without_network.learn(kind, taught, *grounds, card, seed, say, most_pieces=most)
    done = finished(chosen, case, kind.criterion or "")
    done = completed(done, kind, None, *grounds)
    case.close()
    return done, without_network.verdict(chosen, case.sides.method)


def _planned(
    case: Case,
    kind: NetworkKind,
    network: TrainableNetwork,
    from_weights: bool,
    epochs: int | None,
    freeze: int | Literal["all"],
    within: Length | None,
) -> Schedule:
    """The plan for the case, with what a user has stated."""
    stages = len(network.stages())
    frozen = stages if freeze == "all" else freeze
    if frozen > stages:
        raise UserError(f"--freeze is {freeze}, but the encoder has {stages} stages.")
    side = kind.chip_px(case.card)
    plan = plan_for(case.statistics, case.card, case.start is not None, from_weights, epochs, side)
    if within is not None:
        own_px = 1.0 if case.made.unit == "m" else case.made.unit_per_px
        plan = replace(plan, within_px=within.pixels(_square(case.made), name="--within") / own_px)
    usual = Augmentations(**kind.augmentations)
    return replace(plan, frozen=frozen, augmentations=usual)


def _drawn(case: Case, plan: Schedule) -> Drawn | DrawnPatches:
    """What chips are drawn from."""
    read_px = math.ceil(plan.size_px * plan.augmentations.widening)
    if case.is_patches:
        return DrawnPatches(case.training, case.validation, plan.size_px, read_px)
    return Drawn(case.training, case.validation, read_px)


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Say after Ctrl-C how to go on; a folder with nothing to go on from is removed."""
    try:
        yield
    except KeyboardInterrupt as error:
        if (folder / checkpoint.LAST).is_file():
            kept = f"what is learned so far is kept in {folder}"
            raise Interrupted(f"Stopped; {kept}: run the same command with --resume to go on.") from error
        checkpoint.remove(folder)
        raise Interrupted("Stopped before anything was learned; the same command begins anew.") from error


def _writable(out: str | os.PathLike[str], *, overwrite: bool) -> Path:
    target = Path(out)
    if target.suffix.lower() != ".safetensors":
        raise UserError(f"{target} must end in .safetensors, the format of models.")
    if not target.parent.is_dir():
        raise UserError(f"{target} can't be written: there is no folder {target.parent}.")
    if not os.access(target.parent, os.W_OK):  # or it would be said after the training
        raise UserError(f"{target} can't be written: its folder is read-only; choose another one.")
    if target.exists() and not overwrite:
        raise already_there(target)
    return target


def _check_taught(kind: str, start: Bundle | None, given: Mapping[str, Any]) -> None:
    """Raise UserError for what only a network that is trained can be told."""
    if start is not None:
        raise UserError(f"'{start.card.name}' can't be trained further; train a new one with -m {kind}.")
    for flag, value in given.items():
        if value:
            raise UserError(f"{kind} trains no network here, so {flag} means nothing; leave it out.")


def _device(asked: str) -> str:
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        raise UserError("There is no CUDA device here; use --device cpu.")
    if asked == "mps" and not torch.backends.mps.is_available():
        raise UserError("There is no MPS device here; use --device cpu.")
    return asked


def _network(
    kind: NetworkKind,
    card: Card,
    start: Bundle | None,
    backbone: str | None,
    weights: str | None,
    say: Callable[[Note], None],
) -> TrainableNetwork:
    if start is not None:
        network = kind.network(card, None)
        for note in adapted(network, start, card):
            say(note)
        return network
    if backbone is None or weights == "none":
        return kind.network(card, None)
    from ecodetect.networks import backbones

    if weights in (None, "imagenet"):
        return kind.network(card, backbones.pretrained(backbone))
    if weights == "coco":
        return kind.network(card, backbones.pretrained(backbone, "coco"))
    return kind.network(card, backbones.from_file(str(weights)))


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
    """Metres per pixel that the network sees, along x and y."""
    return None if made.unit == "px" or made.gsd is None else (made.gsd, made.gsd)


def _fingerprint(sources: Sequence[AnnotatedRaster]) -> str:
    """What stands for the data: another layer or raster size gives another."""
    digest = hashlib.sha256()
    for source in sources:
        marked = source.annotations
        digest.update(f"{source.name} {source.grid.describe()} {source.bands}".encode())
        digest.update(b"".join(shapely.to_wkb(marked.geometry).tolist()))
        digest.update("\n".join(map(str, marked.label)).encode())
    return digest.hexdigest()

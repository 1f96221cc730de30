"""From files and a few wishes to a bundle: what a user doesn't say is derived from the data.

`train` gathers sources, chooses how rasters are seen, splits the ground, builds a network or takes one from a
bundle, makes a plan, runs the loop and writes bundle, card and curves. The loop itself is in `loop`.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import shapely
import torch
from torch import nn

from ecodetect import __version__, bundle, detectors, models, runtime
from ecodetect.bands import stand_ins
from ecodetect.bundle import Bundle, Card
from ecodetect.detectors.protocol import read_options
from ecodetect.errors import UserError
from ecodetect.onnx_file import OnnxModel
from ecodetect.sizes import Length
from ecodetect.training import (
    LEAST_STEPS,
    MOST_STEPS,
    PASSES,
    PATCH_PASSES,
    STEP_PX,
    report,
    without_network,
)
from ecodetect.training.adapting import adapted, contract_for
from ecodetect.training.augmentation import Augmentations
from ecodetect.training.class_folders import DrawnPatches, Patches, are_classes, gather_classes
from ecodetect.training.drawing import Drawn, Pieces
from ecodetect.training.loop import Fitted, Plan, Progress, fit, stages
from ecodetect.training.processes import joined
from ecodetect.training.sample import Sample
from ecodetect.training.samples import TYPICAL_PX, Contract, Dataset, Statistics, contract
from ecodetect.training.selection import FEW, Found, Judged, choose, judge, pooled
from ecodetect.training.sources import Asked, Gathered, Source, gather
from ecodetect.training.splits import Split, places, split

EPOCHS = 24  # so many validations: a curve to look at, at a few percent of the time
# Highest rates of AdamW at this batch: a network from scratch, one with a pretrained encoder, a bundle.
RATE_SCRATCH, RATE_BACKBONE, RATE_BUNDLE = 2e-3, 2e-3, 1e-3
SLOWER = 0.3  # pretrained layers, against those that begin at random
_PLENTY_PX = 32.0  # reach of a target and a network beside an object of unknown size


@dataclass(frozen=True, eq=False, slots=True)
class Trained:
    """What came of a training.

    path : of the bundle.  curves : of the picture.
    fitted : rates and history.  verdict : what figures of training and validation mean together.
    notes : sentences for the user.
    Without a network there are no curves and no history: None.
    """

    path: Path
    curves: Path | None
    bundle: Bundle
    fitted: Fitted | None
    verdict: str
    notes: tuple[str, ...]


def train(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    model: str | None = None,
    asked: Asked | None = None,
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
    say: Callable[[str], None] = lambda note: None,
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
    asked : Asked, optional
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
        Of all chance: the same seed gives the same bytes on the CPU.
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
        Of the detector's training, as name -> text; see its `Training`.
    command : str
        What the card gives as the command.
    say, progress : callable, optional
        For sentences while it runs, and after each step.

    Raises
    ------
    UserError
        In one sentence, when something can't be read, brought together or trained.
    """
    target = _writable(out, overwrite=overwrite)
    folder = target.with_name(f"{target.name}.training")
    if folder.exists() and not resume:
        raise UserError(
            f"{folder} holds a training that wasn't finished; go on with --resume, or remove the folder."
        )
    case = _begun(
        paths, target.stem, model, asked, backbone, weights, split_by, seed, gsd, settings, command, say
    )
    torch.manual_seed(seed)
    if case.is_taught:
        given = {"--freeze": freeze, "--epochs": epochs, "--within": within, "--resume": resume}
        done, verdict = _taught(case, backbone, weights, seed, given, say)
        bundle.write(target, done)
        return Trained(target, None, done, None, verdict, case.gathered.notes)
    network = _network(case.detector, case.card, case.start, backbone, weights, say)
    plan = _planned(case, network, weights_are_learned(backbone, weights), epochs, freeze, within)
    plan = replace(plan, seed=seed, workers=workers or min(4, os.cpu_count() or 1))
    if augmentations is not None:
        plan = replace(plan, augmentations=augmentations)
    say(_described(case.statistics, case.sides, network, plan, case.made))
    processes = joined(_device(device))
    fitted = fit(
        case.detector,
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
    if hasattr(case.detector, "answers"):
        fitted = _rejudged(fitted, case.detector, *case.grounds)
    unit = case.made.unit if case.made.gsd is not None else "px"
    near = f"distance ≤ {plan.within_px * (case.made.gsd or 1.0):.3g} {unit}, one to one"
    criterion = getattr(case.detector, "CRITERION", near) if case.statistics.sized else near
    done = _completed(_finished(fitted, case, criterion), case.detector, network, *case.grounds)
    case.close()
    curves = target.with_name(f"{target.stem}.curves.png")
    if processes.leads:
        bundle.write(target, done)
        report.draw_curves(fitted.history, curves, title=target.stem)
        shutil.rmtree(folder, ignore_errors=True)
    verdict = report.verdict(fitted, case.sides.method)
    return Trained(target, curves, done, fitted, verdict, case.gathered.notes)


# -- what is to be trained ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Case:
    """What is to be trained, and on which ground.

    kind, detector : its name and module.  start : the bundle that it goes on from, if any.
    wished : the detector's `Training`; None where there is nothing to set.
    made : how rasters are seen.  statistics : of the training ground.
    card : as far as it is known before training.
    is_patches : whether the ground is pictures in folders by class.
    """

    kind: str
    detector: Any
    start: Bundle | None
    wished: Any
    made: Contract
    gathered: Gathered
    sides: Split
    whole: Dataset
    training: Dataset
    validation: Dataset
    statistics: Statistics
    card: Card
    is_patches: bool

    @property
    def is_taught(self) -> bool:
        """Whether a learner decides, so that no network is trained."""
        return getattr(self.wished, "head", "network") != "network"

    @property
    def grounds(self) -> tuple[Sequence[Sample], Sequence[Sample]]:
        """The ground of training and of validation, piece by piece."""
        if not self.is_patches:
            return Pieces(self.training), Pieces(self.validation)
        side = int(self.card.options["network"]["window"])
        return Patches(self.training, side), Patches(self.validation, side)

    def close(self) -> None:
        for each in (self.whole, self.training, self.validation):
            each.close()


def _begun(
    paths: Sequence[str | os.PathLike[str]],
    name: str,
    model: str | None,
    asked: Asked | None,
    backbone: str | None,
    weights: str | None,
    split_by: str,
    seed: int,
    gsd: float | None,
    settings: Mapping[str, str] | None,
    command: str,
    say: Callable[[str], None],
) -> _Case:
    """Gather, choose the detector and how rasters are seen, split; see `train`.

    name : of the new bundle.
    """
    start = models.opened(model) if model is not None else None  # None: the name of a detector
    if isinstance(start, OnnxModel):
        raise UserError(
            f"{model} was exported, so it can't be trained; say the .safetensors file it is from."
        )
    is_patches = are_classes(paths)
    gathered = gather_classes(paths[0], asked) if is_patches else gather(paths, asked)
    sources = gathered.sources
    for note in gathered.notes:
        say(note)
    if model is None and is_patches:
        model = "sliding_window"
    elif model is None and backbone is None and weights is None:
        known = nearest(sources)
        start = models.opened(known) if known is not None else None
        if known is not None:
            say(f"Training begins with what '{known}' has learned; -m heatmap begins with nothing.")
    kind = start.card.detector if start is not None else model or "heatmap"
    detector = _learned(kind)
    if is_patches and not hasattr(detector, "PATCH_PX"):
        raise UserError(
            f"{paths[0]} holds pictures in folders by class, which {kind} can't learn from; train -m"
            " sliding_window."
        )
    wished = _wished(detector, kind, settings or {})
    made, notes = _seen(detector, sources, start, backbone, gsd, wished, is_patches=is_patches)
    for note in notes:
        say(note)
    sides = split(sources, by=split_by, seed=seed)
    whole = Dataset(sources, made, is_shaped=getattr(detector, "NEEDS_SHAPES", False))
    training, validation = whole.limited(sides.training), whole.limited(sides.validation)
    statistics = training.statistics()
    unseen = _unseen(statistics, validation.statistics())
    if unseen and split_by in ("auto", "blocks", "files", "none"):
        say(f"{unseen}, so nothing learns it.")
    elif unseen:
        raise UserError(f"{unseen}; split otherwise than by {split_by}, or leave it out with --ignore.")
    asked_of_card = {} if wished is None else {"training": wished, "patches": is_patches}
    card = _card(name, kind, detector, made, sources, whole, start, backbone, command, asked_of_card)
    if hasattr(detector, "weighted"):
        card = detector.weighted(card, statistics.per_class, wished)
    return _Case(
        kind, detector, start, wished, made, gathered, sides, whole, training, validation, statistics, card,
        is_patches,
    )  # fmt: skip


def _seen(
    detector: Any,
    sources: Sequence[Source],
    start: Bundle | None,
    backbone: str | None,
    gsd: float | None,
    wished: Any,
    *,
    is_patches: bool,
) -> tuple[Contract, Sequence[str]]:
    """How rasters are seen, and what to say of it."""
    typical = getattr(detector, "TYPICAL_PX", TYPICAL_PX)
    if is_patches:
        typical = detector.WINDOW_PX if backbone is None else detector.PATCH_PX
    if start is None:
        scaling: Literal["auto", "fixed"] = "fixed" if is_patches else "auto"
        made, notes = contract(sources, gsd=gsd, typical_px=typical, scaling=scaling)
    else:
        made, notes = contract_for(start.card, sources, gsd, typical_px=typical)
    window: Length | None = getattr(wished, "window", None)
    if window is not None:
        made = _seen_through(window, detector, made, sources)
    return made, notes


def _taught(
    case: _Case,
    backbone: str | None,
    weights: str | None,
    seed: int,
    given: Mapping[str, Any],
    say: Callable[[str], None],
) -> tuple[Bundle, str]:
    """The bundle of a learner taught on the case's ground, and the verdict.

    given : options that only a network that is trained can be told, and what was said.
    """
    taught: Any = case.detector
    if hasattr(case.detector, "frozen"):
        found = _network(case.detector, case.card, case.start, backbone, weights, say).state_dict()
        taught = case.detector.frozen(case.card, {name: each.numpy() for name, each in found.items()})
    else:
        given = {**given, "--backbone": backbone, "--weights": weights}
    _check_taught(case.kind, case.start, given)
    chosen = without_network.learn(taught, *case.grounds, case.card, seed, say)
    done = _finished(chosen, case, case.detector.CRITERION)
    done = _completed(done, case.detector, None, *case.grounds)
    case.close()
    return done, without_network.verdict(chosen, case.sides.method)


def _planned(
    case: _Case,
    network: nn.Module,
    from_weights: bool,
    epochs: int | None,
    freeze: int | Literal["all"],
    within: Length | None,
) -> Plan:
    """The plan for the case, with what a user has stated."""
    frozen = len(stages(network)) if freeze == "all" else freeze
    if frozen > len(stages(network)):
        raise UserError(f"--freeze is {freeze}, but the encoder has {len(stages(network))} stages.")
    side = getattr(case.detector, "chip_px", lambda card: None)(case.card)
    plan = plan_for(case.statistics, case.card, case.start is not None, from_weights, epochs, side)
    if within is not None:
        own_px = 1.0 if case.made.unit == "m" else case.made.gsd or 1.0
        plan = replace(plan, within_px=within.pixels(_square(case.made), name="--within") / own_px)
    usual = Augmentations(**getattr(case.detector, "AUGMENTATIONS", {}))
    return replace(plan, frozen=frozen, augmentations=usual)


def _drawn(case: _Case, plan: Plan) -> Drawn | DrawnPatches:
    """What chips are drawn from."""
    read_px = math.ceil(plan.size_px * plan.augmentations.widening)
    if case.is_patches:
        return DrawnPatches(case.training, case.validation, plan.size_px, read_px)
    return Drawn(case.training, case.validation, read_px)


def _wished(detector: Any, kind: str, settings: Mapping[str, str]) -> Any:
    """What a user wants of a detector's training; None for one that has nothing to set."""
    known = getattr(detector, "Training", None)
    if known is not None:
        return read_options(known, settings, kind)
    if settings:
        raise UserError(f"Training {kind} has nothing to set with --set; got {', '.join(sorted(settings))}.")
    return None


def _seen_through(window: Length, detector: Any, made: Contract, sources: Sequence[Source]) -> Contract:
    """The contract with pixels so large that a network's window is as wide as stated."""
    if made.unit == "px":
        return replace(made, gsd=window.pixels(None, name="window") / detector.WINDOW_PX)
    native = [source.grid.gsd for source in sources if source.grid.gsd is not None]
    per_px = float(np.median([np.sqrt(np.prod(gsd)) for gsd in native]))
    metres = window.value if window.unit == "m" else window.value * per_px
    return replace(made, gsd=_round(metres / detector.WINDOW_PX))


def _unseen(training: Statistics, validation: Statistics) -> str:
    """Which classes are only in validation, in words; empty: none."""
    counts = {
        name: count
        for name, count in validation.per_class.items()
        if count and not training.per_class.get(name, 0)
    }
    each = ", ".join(f"'{name}' ({count})" for name, count in sorted(counts.items()))
    return f"Validation has annotations of a class that training has none of: {each}" if counts else ""


def nearest(sources: Sequence[Source]) -> str | None:
    """The model that comes with ecodetect from which to learn the objects of these rasters; None: none.

    One that sees pixels of a known size if theirs is known, else one that doesn't; then the one that sees
    most of their bands; then the one whose pixels are nearest in size.
    """
    gsds = [float(np.sqrt(np.prod(s.grid.gsd))) for s in sources if s.grid.gsd is not None]
    found = []
    for name, card in models.known().items():
        if card.detector != "heatmap" or (card.gsd_m is None) != (not gsds):
            continue
        if any(stand_ins(card.bands, bands) is None for bands in {source.bands for source in sources}):
            continue
        apart = 0.0 if card.gsd_m is None else abs(math.log(float(np.median(gsds)) / card.gsd_m))
        found.append((-len(card.bands), apart, name))
    return min(found)[2] if found else None


def _writable(out: str | os.PathLike[str], *, overwrite: bool) -> Path:
    target = Path(out)
    if target.suffix.lower() != ".safetensors":
        raise UserError(f"{target} must end in .safetensors, the format of models.")
    if not target.parent.is_dir():
        raise UserError(f"{target} can't be written: there is no folder {target.parent}.")
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists; replace it with --overwrite.")
    return target


def _is_learned(kind: str) -> bool:
    return bool(
        getattr(importlib.import_module(detectors.known()[kind].partition(":")[0]), "IS_LEARNED", False)
    )


def _learned(kind: str) -> Any:
    if kind not in detectors.known():
        raise UserError(f"The bundle's detector is '{kind}', which isn't installed.")
    if not _is_learned(kind):
        raise UserError(f"'{kind}' has nothing to learn; train a detector such as heatmap.")
    return importlib.import_module(detectors.known()[kind].partition(":")[0])


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


def _card(
    name: str,
    kind: str,
    detector: Any,
    made: Contract,
    sources: Sequence[Source],
    whole: Dataset,
    start: Bundle | None,
    backbone: str | None,
    command: str,
    wished: Mapping[str, Any],
) -> Card:
    """The card as far as it is known before training."""
    from ecodetect.training.sources import spacing

    objects = [whole.objects(number) for number in whole.used]
    sizes = np.concatenate([np.sqrt(np.prod(each.size, axis=1)) for each in objects])
    spaces = np.concatenate([spacing(each.xy) for each in objects])
    spaces = spaces[spaces > 0]
    asked: dict[str, Any] = dict(wished)
    if start is not None:
        # How fine its map must be depends on these objects, not on those it has learned.
        network = start.card.options.get("network", {})
        kept = getattr(detector, "KEPT", ("kind", "width", "depth"))
        asked["network"] = {key: network[key] for key in kept if key in network}
    elif backbone is not None:
        asked["network"] = {"kind": backbone, "depth": 4}
    options = detector.card_options(sizes, spaces, asked)
    scale = made.gsd or 1.0
    known = sizes[np.isfinite(sizes)]
    widest = 2 * float(known.max()) if len(known) else _PLENTY_PX
    gsds = [float(np.sqrt(np.prod(s.grid.gsd))) for s in sources if s.grid.gsd is not None]
    span = None
    if made.unit == "m" and gsds and made.gsd is not None:
        span = (_round(0.75 * min(gsds)), _round(1.25 * max([made.gsd, *gsds])))
    diameters = None
    if len(known):
        low, high = np.percentile(known, (5, 95)) * scale
        diameters = (_round(float(low)), _round(float(high)))
    return Card(
        name=name,
        detector=kind,
        options=options,
        bands=made.bands,
        scaling=made.scaling,
        fill=made.fill,
        unit=made.unit,
        gsd=made.gsd,
        gsd_range=span,
        diameter_range=diameters,
        largest=_round(widest * scale),
        classes=made.classes,
        command=command,
        versions={
            "ecodetect": __version__,
            "numpy": np.__version__,
            "python": ".".join(map(str, sys.version_info[:3])),
            "torch": str(torch.__version__),
        },
    )


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def weights_are_learned(backbone: str | None, weights: str | None) -> bool:
    """Whether an encoder begins with weights that were learned elsewhere."""
    return backbone is not None and weights != "none"


def _network(
    detector: Any,
    card: Card,
    start: Bundle | None,
    backbone: str | None,
    weights: str | None,
    say: Callable[[str], None],
) -> nn.Module:
    if start is not None:
        if backbone is not None or weights is not None:
            raise UserError(
                "A bundle brings its own network and weights: leave out --backbone and --weights."
            )
        network: nn.Module = detector.network(card)
        for note in adapted(network, start, card):
            say(note)
        return network
    if backbone is None:
        if weights not in (None, "none"):
            raise UserError("--weights are those of a --backbone; name it too.")
        scratch: nn.Module = detector.network(card)
        return scratch
    from ecodetect.networks import backbones

    found: Mapping[str, Any] | None = None
    if weights in (None, "imagenet"):
        found = backbones.pretrained(backbone)
    elif weights == "coco":
        found = backbones.pretrained(backbone, "coco")
    elif weights != "none":
        found = backbones.from_file(str(weights))
    built: nn.Module = detector.network(card, found)
    return built


def plan_for(
    statistics: Statistics,
    card: Card,
    from_bundle: bool,
    from_weights: bool,
    epochs: int | None = None,
    side: int | None = None,
) -> Plan:
    """How much of what, for data like these.

    side : of the chips, where the network asks for one: a window, of which it answers the middle.

    Chips show some eight individuals side by side; a step has about as many pixels whatever their size; the
    ground is passed `PASSES` times, in no fewer steps than a few individuals need and no more than a night
    has.
    """
    size, spaces = statistics.size_px, statistics.spacing_px
    typical = size[1] if size is not None else spaces[2] if spaces is not None else 24.0
    is_window = side is not None
    side = side or 32 * round(float(np.clip(8 * typical, 160, 320)) / 32)
    batch = max(4, round(STEP_PX / side**2))
    ground = max(statistics.known_px, statistics.objects * (2 * typical) ** 2)
    passes = PASSES
    if is_window and statistics.known_px <= statistics.images * side**2:  # pictures of one individual each
        ground, passes = statistics.known_px, PATCH_PASSES if from_weights else PASSES
    steps = float(np.clip(passes * ground / (batch * side**2), LEAST_STEPS, MOST_STEPS))
    every = math.ceil(steps / EPOCHS)
    widest = size[2] if size is not None else typical
    # A position counts as found within an object's radius; of points half the way to the neighbour.
    within = size[1] / 2 if size is not None else spaces[2] / 2 if spaces is not None else 12.0
    return Plan(
        size_px=side,
        batch=batch,
        steps=every * (epochs or EPOCHS),
        every=every,
        rate=RATE_BUNDLE if from_bundle else RATE_BACKBONE if from_weights else RATE_SCRATCH,
        slower=SLOWER if from_weights else 1.0,
        within_px=max(2.0, round(within, 2)),
        rim_px=0 if is_window else round(float(np.clip(widest / 2, 4, side / 8))),
        patience=EPOCHS // 2 - 2,
    )


def _described(statistics: Statistics, sides: Split, network: nn.Module, plan: Plan, made: Contract) -> str:
    weights = sum(each.numel() for each in network.parameters())
    gsd = f" at {made.gsd:g} {made.unit} per pixel" if made.gsd is not None and made.unit != "px" else ""
    return (
        f"{statistics.objects:,} individuals to train on and {sides.objects[1]:,} to validate with"
        f" ({sides.method}), bands {', '.join(made.bands)}{gsd}; {weights / 1e6:.2f} million weights, at most"
        f" {plan.steps:,} steps of {plan.batch} chips of {plan.size_px} px"
    )


def _square(made: Contract) -> tuple[float, float] | None:
    """Metres per pixel that the network sees, along x and y."""
    return None if made.unit == "px" or made.gsd is None else (made.gsd, made.gsd)


def _fingerprint(sources: Sequence[Source]) -> str:
    """What stands for the data: another layer or raster size gives another."""
    digest = hashlib.sha256()
    for source in sources:
        marked = source.annotations
        digest.update(f"{source.name} {source.grid.describe()} {source.bands}".encode())
        digest.update(b"".join(shapely.to_wkb(marked.geometry).tolist()))
        digest.update("\n".join(map(str, marked.label)).encode())
    return digest.hexdigest()


# -- what is written ---------------------------------------------------------------------------------------


def _finished(fitted: Fitted | without_network.Chosen, case: _Case, criterion: str) -> Bundle:
    """The bundle with all that is known now."""
    card, statistics, sides, start = fitted.bundle.card, case.statistics, case.sides, case.start
    used = [source for number, source in enumerate(case.gathered.sources) if number in sides.training]
    entry = {
        "name": ", ".join(source.name for source in used[:5])
        + (f" and {len(used) - 5} more" if len(used) > 5 else ""),
        "rasters": len(used),
        "objects": statistics.objects,
        "per_class": dict(statistics.per_class),
        "places": places(used),
    }
    if start is not None:
        entry["began_with"] = f"{start.card.name} {start.hash}"
    rates = fitted.validation
    metric = {
        "split": "validation",
        "chosen": sides.method,
        "n": rates.n_truths,
        "rasters": len(sides.validation),
        "criterion": criterion,
        "precision": _figure(rates.precision),
        "recall": _figure(rates.recall),
        "f1": _figure(rates.f1),
        "ap": _figure(fitted.ap),
        "note": "the threshold was chosen on the same ground"
        if rates.n_truths
        else "nothing to validate with",
    }
    return Bundle(replace(card, trained_on=(entry,), metrics=(metric,)), fitted.bundle.weights)


def _rejudged(
    fitted: Fitted, detector: Any, training: Sequence[Sample], validation: Sequence[Sample]
) -> Fitted:
    """Rates and thresholds of what a scan finds, where that isn't what is read off the network's output."""
    done = fitted.bundle
    classes = len(done.card.classes)

    def judged(samples: Sequence[Sample]) -> Judged:
        found = (Found(*each) for each in detector.answers(done, samples))
        pairs = zip(found, samples, strict=True)
        return pooled((judge(each, sample, 0.0, classes) for each, sample in pairs), classes)

    unseen, seen = judged(validation), judged(training)
    few = unseen.n_truths.sum() < FEW
    thresholds = choose(pooled([unseen, seen], classes) if few else unseen, otherwise=0.5)
    card = replace(done.card, thresholds=thresholds)
    return replace(
        fitted,
        bundle=Bundle(card, done.weights),
        validation=unseen.rates(thresholds["f1"]),
        training=seen.rates(thresholds["f1"]),
        ap=unseen.ap().coco,
    )


def _completed(
    done: Bundle,
    detector: Any,
    network: nn.Module | None,
    training: Sequence[Sample],
    validation: Sequence[Sample],
) -> Bundle:
    """The bundle with what the detector itself reads off annotated ground, if it does, and its locality."""
    done = _calibrated(done, detector, training, validation)
    if hasattr(detector, "measured"):
        told = detector.measured(done, validation if len(validation) else training)
        done = Bundle(replace(done.card, metrics=(*done.card.metrics, told)), done.weights)
    return _measured(done, detector, network, next(chain(validation, training), None))


def _calibrated(
    done: Bundle, detector: Any, training: Iterable[Sample], validation: Iterable[Sample]
) -> Bundle:
    """The bundle with what a detector reads off annotated ground, if it does."""
    calibrated = getattr(detector, "calibrated", None)
    if calibrated is None:
        return done
    return Bundle(calibrated(done, training, validation), done.weights)


def _measured(done: Bundle, detector: Any, network: nn.Module | None, sample: Sample | None) -> Bundle:
    """The bundle with what tests of locality say, on a sample of the ground.

    network : None: without one, what is found may depend on all of an image.
    """
    card = replace(done.card, reach_px="whole image")
    if network is not None:
        card = replace(done.card, reach_px=runtime.reach(network.cpu(), len(done.card.bands)))
    measure = getattr(detector, "measure_agreement", None)
    if measure is not None:
        image = None if sample is None else sample.image
        card = replace(card, agreement=measure(Bundle(card, done.weights), image))
    return Bundle(card, done.weights)


def _figure(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)

"""The training loop of all detectors: plain PyTorch, and deterministic for a seed.

A detector provides network, targets, losses and decoding (its `NetworkKind`); the data provide random chips
and validation ground (`Data`); a `Schedule` holds the hyperparameters (`planning` derives them from the
data). The chips of a step depend only on the seed and the step, not on workers or interruptions, so resuming
from the last checkpoint gives the same weights. The result is a moving average of the weights, from the epoch
with the best validation (early stopping).
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecodetect.annotations.sample import Sample
from ecodetect.bundle import file as bundle
from ecodetect.bundle.card import Card
from ecodetect.bundle.file import Bundle
from ecodetect.bundle.scaling import padded_to_stride
from ecodetect.detectors.learned import Answer, Arrays, NetworkKind
from ecodetect.errors import UserError
from ecodetect.metrics import Rates
from ecodetect.networks.network import TrainableNetwork
from ecodetect.training import checkpoint, selection
from ecodetect.training.augmentation import NONE, Light, augment, mosaic
from ecodetect.training.planning import Schedule
from ecodetect.training.processes import Processes
from ecodetect.training.selection import Counted, RankedMatches

LOOKED_AT = 64  # training chips that are judged, to compare with validation
LIGHT_FROM = 24  # training chips that black and white are measured on
_LEAST_RATE = 0.01  # of the highest learning rate, at the end of the cosine
_CLIP = 5.0  # largest norm of the gradient; typical norms are below 1
_FALSE_SHARE = 0.25  # at most this share of the searched chips become hard negatives
_HARD_SHARE = 0.2  # share of hard negatives among training chips, once there are any
_MINED_AT = (0.4, 0.7)  # of the training: by then false positives are few and informative


class TrainingError(UserError):
    """Training can't continue; the message says what is kept."""


class Data(Protocol):
    """What training needs from the data."""

    def chip(self, rng: np.random.Generator) -> Sample:
        """A random chip of training ground, a function of the generator's state; called from threads."""
        ...

    @property
    def validation(self) -> Sequence[Sample]:
        """Validation ground, cut into samples."""
        ...


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of the history: training loss and validation F1 at the end of an epoch (NaN: no truth).

    drawn : average precision on validation, which compares epochs; see `selection.drawn_precision`.
    """

    step: int
    loss: float
    f1: float
    ap: float
    rate: float
    drawn: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress after a step.

    loss : recent mean.  best, f1 : on validation, the best and the last; NaN before the first.
    per_second : chips.  seconds_left : without early stopping.  waited : share of time waiting for data.
    """

    step: int
    steps: int
    loss: float
    f1: float
    best: float
    per_second: float
    seconds_left: float
    waited: float


@dataclass(frozen=True, eq=False, slots=True)
class Fitted:
    """The result of training.

    bundle : the best network with its thresholds.
    validation, training : rates at the threshold "f1"; the latter on chips that it was trained on.
    ap : on validation.
    counted : errors of counts on validation; None where the threshold isn't chosen there.
    history : epoch by epoch.
    stopped : whether early stopping ended it.
    waited : share of the time spent waiting for data.
    """

    bundle: Bundle
    validation: Rates
    training: Rates
    ap: float
    counted: Counted | None
    history: tuple[Epoch, ...]
    stopped: bool
    waited: float


def fit(
    kind: NetworkKind,
    network: TrainableNetwork,
    card: Card,
    data: Data,
    plan: Schedule,
    folder: checkpoint.Folder,
    *,
    processes: Processes | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Fitted:
    """Train a network.

    Parameters
    ----------
    kind : NetworkKind
        Of the detector.
    network : TrainableNetwork
        With its initial weights.
    card : Card
        Options, bands, classes and fill value of the network.
    data : Data
        The data.
    plan : Plan
        The hyperparameters.
    folder : checkpoint.Folder
        For checkpoints, and whether to resume from one.
    processes : Processes, optional
        The processes that train together, and this one's device; default: alone on the CPU.
    progress : callable, optional
        Called after each step.

    Raises
    ------
    TrainingError
        When the loss is no longer finite; the best network until then is kept in `folder`.
    """
    processes = processes or Processes()
    if processes.count > plan.batch:
        raise UserError(
            f"A step has {plan.batch} chips, too few for {processes.count} processes; start fewer."
        )
    with _deterministic(processes.device, plan.seed):
        return _Training(kind, network, card, data, plan, folder, processes).run(progress)


@contextlib.contextmanager
def _deterministic(device: str, seed: int) -> Iterator[None]:
    """Deterministic arithmetic on the CPU; torch's settings are restored afterwards."""
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(device == "cpu")
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was)


class _Training:
    """A training under way."""

    def __init__(
        self,
        kind: NetworkKind,
        network: TrainableNetwork,
        card: Card,
        data: Data,
        plan: Schedule,
        folder: checkpoint.Folder,
        processes: Processes,
    ) -> None:
        self.kind, self.card, self.data, self.plan = kind, card, data, plan
        self.folder, self.is_resumed = folder.path, folder.resume
        self.processes, self.device = processes, torch.device(processes.device)
        self.network: TrainableNetwork = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        _freeze(self.network, plan.frozen)
        self.together = processes.joined(self.network)
        # A network that selects what it learns from by the truth (proposals) returns losses, not outputs.
        self.takes_targets = network.takes_targets
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(_groups(network, plan), lr=plan.rate)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.step = 0
        self.history: list[Epoch] = []
        self.hard: list[tuple[int, int]] = []
        facts = {"card": card.to_json(), "plan": {**asdict(plan), "workers": 0}, "data": folder.key}
        self.key = sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        self.light = Light.of((self._chip((3, index)) for index in range(LIGHT_FROM)), card.bands)
        self.began, self.waited, self.worked = time.monotonic(), 0.0, 0

    # -- the loop ------------------------------------------------------------------------------------------

    def run(self, progress: Callable[[Progress], None] | None) -> Fitted:
        plan = self.plan
        last = self.folder / checkpoint.LAST
        if self.is_resumed and last.is_file():
            self._restore(last)
        self.began = time.monotonic()
        stopped = self._is_stale()
        while self.step < plan.steps and not stopped:
            loss = self._epoch(min(self.step + plan.every, plan.steps), progress)
            judged = self._validate()
            thresholds = self.kind.thresholds(self.card) or selection.choose(judged, otherwise=0.5)
            now = Epoch(
                self.step,
                loss,
                judged.rates(thresholds["f1"]).f1,
                judged.ap().coco,
                self._rate_at(self.step),
                selection.drawn_precision(judged),
            )
            self.history.append(now)
            if self._best() == len(self.history) - 1 and self.processes.leads:
                bundle.write(self._made(self.folder), self._bundle(thresholds))
            if plan.mines and any(
                epoch_of(share * plan.steps, plan.every) == len(self.history) for share in _MINED_AT
            ):
                self._mine(thresholds["f1"])
            if self.processes.leads:
                self._save(last)
            stopped = self._is_stale()
        return self._finished(stopped)

    def _made(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return folder / checkpoint.BEST

    def _is_stale(self) -> bool:
        if not self.history or math.isnan(self.history[-1].f1) or self.step >= self.plan.steps:
            return False
        return len(self.history) - 1 - self._best() >= self.plan.patience

    def _best(self) -> int:
        """The epoch to keep."""
        return selection.last_as_good([epoch.drawn for epoch in self.history])

    def _epoch(self, until: int, progress: Callable[[Progress], None] | None) -> float:
        """Train up to a step; the mean loss."""
        self.network.train()
        _freeze(self.network, self.plan.frozen)
        losses: list[float] = []
        with ThreadPoolExecutor(max(1, self.plan.workers)) as pool:
            for images, targets in self._batches(pool, until):
                losses.append(self._train(images, targets))
                self.step += 1
                self.worked += 1
                if not math.isfinite(losses[-1]):
                    raise TrainingError(self._about_loss())
                if progress is not None:
                    progress(self._progress(losses))
        # Each process has its own means and variances of normalisation where they aren't synchronised.
        self.processes.spread(self.average.values())
        return float(np.mean(losses))

    def _train(self, images: Tensor, targets: Mapping[str, Tensor]) -> float:
        """One step; the loss, before it is taken."""
        # Networks with randomness (sampled proposals, dropout) draw the same numbers when resumed.
        torch.manual_seed(1_000_003 * self.plan.seed + self.step)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self._factor_at(self.step)
        with _mixed(self.device, self.network):
            outputs = self.together(images, targets) if self.takes_targets else self.together(images)
        losses = self.kind.losses(_float(outputs), targets, self.card)
        loss = torch.stack(list(losses.values())).sum()
        value = self.processes.mean(float(loss.detach()))  # of all processes, so that all stop together
        if not math.isfinite(value):
            return value
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP))
        if not math.isfinite(norm):
            return norm
        self.optimizer.step()
        self._update_average()
        return value

    @torch.no_grad()
    def _update_average(self) -> None:
        """Update the moving average of weights: over about the last 2 % of the steps."""
        share = max(1 / max(10.0, 0.02 * self.plan.steps), 1 / (2 + self.step))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, share)
            else:
                self.average[name].copy_(value)

    def _rate_at(self, step: int) -> float:
        return self.plan.rate * self._factor_at(step)

    def _factor_at(self, step: int) -> float:
        """The factor on the learning rate: a linear warm-up over 5 % of the steps, then a cosine."""
        warm = max(1.0, min(0.05 * self.plan.steps, 500))
        if step < warm:
            return (step + 1) / (warm + 1)
        done = (step - warm) / max(1.0, self.plan.steps - warm)
        return _LEAST_RATE + (1 - _LEAST_RATE) * (1 + math.cos(math.pi * min(done, 1.0))) / 2

    # -- data ----------------------------------------------------------------------------------------------

    def _chip(self, place: Sequence[int]) -> Sample:
        """A random chip, a function of its place in the random sequence."""
        return self.data.chip(np.random.default_rng([self.plan.seed, *place]))

    def _prepared(self, step: int, item: int) -> tuple[NDArray[np.float32], Arrays]:
        """One chip of a step, with its targets."""
        rng = np.random.default_rng([self.plan.seed, 1, step, item])
        share = self.plan.augmentations.mosaic
        if share and rng.random() < share:
            varied = mosaic([self._varied(rng) for _ in range(4)], rng)
        else:
            varied = self._varied(rng)
        return varied.image, self.kind.targets(self._rimmed(varied), self.card)

    def _varied(self, rng: np.random.Generator) -> Sample:
        """A random variant of a random chip."""
        if self.hard and rng.random() < _HARD_SHARE:
            sample = self._chip((2, *self.hard[int(rng.integers(len(self.hard)))]))
        else:
            sample = self.data.chip(rng)
        kinds, size = self.plan.augmentations, self.plan.size_px
        return augment(sample, rng, kinds, self.light, fill=self.card.fill, size=size)

    def _rimmed(self, sample: Sample) -> Sample:
        """A sample whose rim doesn't count."""
        height, width = sample.ignored.shape
        rim = self.plan.rim_px
        ignored = np.ones_like(sample.ignored)
        ignored[rim : height - rim, rim : width - rim] = False
        return replace(sample, ignored=sample.ignored | ignored)

    def _batches(self, pool: ThreadPoolExecutor, until: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """The batches up to a step, prepared by threads while the network works on others."""
        waiting: deque[list[Future[tuple[NDArray[np.float32], Arrays]]]] = deque()
        ahead = 2 + -(-2 * max(1, self.plan.workers) // self.plan.batch)
        try:
            for step in range(self.step, until + ahead):
                if step < until:
                    items = self.processes.share(range(self.plan.batch))
                    waiting.append([pool.submit(self._prepared, step, item) for item in items])
                if step - self.step < ahead and step < until and len(waiting) < ahead:
                    continue
                if not waiting:
                    break
                began = time.monotonic()
                parts = [future.result() for future in waiting.popleft()]
                self.waited += time.monotonic() - began
                images = torch.from_numpy(np.stack([image for image, _ in parts]))
                targets = {
                    name: torch.from_numpy(stacked([each[name] for _, each in parts])) for name in parts[0][1]
                }
                yield (
                    images.to(self.device, memory_format=torch.channels_last, non_blocking=True),
                    {name: each.to(self.device, non_blocking=True) for name, each in targets.items()},
                )
        finally:
            for futures in waiting:
                for future in futures:
                    future.cancel()

    def _mine(self, thresholds: Sequence[float]) -> None:
        """Hard-negative mining: find chips with false positives, and remember their random numbers."""
        number = len(self.history)
        count = max(self.plan.batch, round(0.3 * self.plan.every * self.plan.batch))
        places = [(number, index) for index in range(count)]
        with _borrowed(self.network, self.average) as network:
            false = [
                self._judge(network, self._plain(self._chip((2, *place)))).rates(thresholds).false_positives
                for place in self.processes.share(places)
            ]
        false = self.processes.gathered(false)
        worst = np.argsort(-np.array(false), kind="stable")[: max(1, int(_FALSE_SHARE * count))]
        self.hard += [places[index] for index in worst if false[index]]

    # -- judging -------------------------------------------------------------------------------------------

    def _plain(self, sample: Sample) -> Sample:
        """The middle of a chip, as it is."""
        rng = np.random.default_rng(0)
        plain = augment(sample, rng, NONE, self.light, fill=self.card.fill, size=self.plan.size_px)
        return self._rimmed(plain)

    def _validate(self) -> RankedMatches:
        with _borrowed(self.network, self.average) as network:
            samples = self.data.validation
            cut = selection.parts_of(len(samples))
            mine = self.processes.share(range(len(samples)))
            parts = [self._judge(network, samples[index], cut) for index in mine]
        return selection.pooled(self.processes.gathered(parts), len(self.card.classes))

    def _judge(self, network: TrainableNetwork, sample: Sample, parts: int = 1) -> RankedMatches:
        found = self._found(network, sample)
        return selection.judge(found, sample, self.plan.within_px, len(self.card.classes), parts)

    @torch.inference_mode()
    def _found(self, network: TrainableNetwork, sample: Sample) -> Answer:
        """The network's detections on a sample of any size."""
        _, height, width = sample.image.shape
        image = padded_to_stride(sample.image, network.stride, self.card.fill)
        tensor = torch.from_numpy(image)[None].to(self.device, memory_format=torch.channels_last)
        outputs = network(tensor)
        maps = [each.float().cpu().numpy() for each in _listed(outputs)]
        found = self.kind.decode(maps, self.card)[0]
        inside = ((found.xy >= 0) & (found.xy < (width, height))).all(axis=1)
        score = np.asarray(found.score[inside], np.float64)
        return Answer(found.geometry[inside], score, found.label[inside])

    # -- files ---------------------------------------------------------------------------------------------

    def _bundle(self, thresholds: Mapping[str, tuple[float, ...]]) -> Bundle:
        weights = {name: value.cpu().numpy() for name, value in self.average.items()}
        return Bundle(replace(self.card, thresholds=thresholds), weights)

    def _save(self, path: Path) -> None:
        state = checkpoint.state_of(self.network, self.average, self.optimizer)
        facts = {
            "key": self.key,
            "step": self.step,
            "history": [asdict(epoch) for epoch in self.history],
            "hard": [list(place) for place in self.hard],
        }
        checkpoint.write(path, replace(state, facts=facts))

    def _restore(self, path: Path) -> None:
        found = checkpoint.read(path, key=self.key)
        try:
            checkpoint.restore(found, self.network, self.average, self.optimizer)
            self.step = int(found.facts["step"])
            self.history = [Epoch(**each) for each in found.facts["history"]]
            self.hard = [(int(number), int(index)) for number, index in found.facts["hard"]]
        except (RuntimeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise checkpoint.CheckpointError(
                f"{path} is damaged; remove it to train from the beginning."
            ) from error

    def _finished(self, stopped: bool) -> Fitted:
        self.processes.wait()  # until the file exists
        best = bundle.read(self._made(self.folder))
        weights = {name: torch.from_numpy(np.array(each)) for name, each in best.weights.items()}
        for name, value in self.average.items():
            value.copy_(weights[name])
        judged, seen, thresholds = self._weighed()
        is_chosen = self.kind.thresholds(self.card) is None
        counted = selection.counted(judged, thresholds["count"]) if is_chosen else None
        best = Bundle(replace(self.card, thresholds=thresholds), best.weights)
        self.processes.wait()  # until all have read the file
        if self.processes.leads:
            bundle.write(self._made(self.folder), best)
        return Fitted(
            best,
            judged.rates(thresholds["f1"]),
            seen.rates(thresholds["f1"]),
            judged.ap().coco,
            counted,
            tuple(self.history),
            stopped,
            self.waited / max(time.monotonic() - self.began, 1e-9),
        )

    def _weighed(self) -> tuple[RankedMatches, RankedMatches, dict[str, tuple[float, ...]]]:
        """Judge the network on validation and training ground, and choose its thresholds.

        Where its detector can decode outputs in several ways, the card gets the way with the highest mean
        average precision, which covers all thresholds, unlike F1. Thresholds of the other ways are kept under
        their names.
        """
        known = self.kind.alternatives(self.card)
        ways: dict[str, tuple[float, RankedMatches, RankedMatches, dict[str, tuple[float, ...]]]] = {}
        for name, card in known.items():
            self.card = card
            judged = self._validate()
            with _borrowed(self.network, self.average) as network:
                mine = self.processes.share(range(LOOKED_AT))
                parts = [self._judge(network, self._plain(self._chip((4, index)))) for index in mine]
                seen = selection.pooled(self.processes.gathered(parts), len(card.classes))
            # Few individuals say little about a threshold, so training individuals are included, or are the
            # only ones. The card states the number for validation.
            few = judged.n_truths.sum() < selection.FEW
            told = selection.pooled([judged, seen], len(card.classes)) if few else judged
            thresholds = self.kind.thresholds(card) or selection.choose(told, otherwise=0.5)
            ways[name] = (told.mean_ap(), judged, seen, thresholds)
        best = max(ways, key=lambda name: ways[name][0])
        self.card = known[best]
        _, judged, seen, thresholds = ways.pop(best)
        for name, (*_, others) in ways.items():
            thresholds |= {f"{name}_{purpose}": scores for purpose, scores in others.items()}
        return judged, seen, thresholds

    def _progress(self, losses: Sequence[float]) -> Progress:
        seconds = time.monotonic() - self.began
        f1s = [epoch.f1 for epoch in self.history if not math.isnan(epoch.f1)]
        return Progress(
            self.step,
            self.plan.steps,
            float(np.mean(losses[-50:])),
            f1s[-1] if f1s else math.nan,
            max(f1s, default=math.nan),
            self.worked * self.plan.batch / seconds,
            (self.plan.steps - self.step) * seconds / self.worked,
            self.waited / seconds,
        )

    def _about_loss(self) -> str:
        best = self.folder / checkpoint.BEST
        kept = f"the best network until then is {best}" if self.history else "nothing was learned until then"
        return f"The loss was no longer finite in step {self.step}, so training stopped; {kept}."


def epoch_of(step: float, every: int) -> int:
    """The epoch of a step, from 1."""
    return max(1, math.ceil(step / every))


# -- the network -------------------------------------------------------------------------------------------


def _groups(network: TrainableNetwork, plan: Schedule) -> list[dict[str, Any]]:
    """Parameter groups: pretrained ones have a lower learning rate, biases and norms no weight decay."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    encoder = network.backbone()
    pretrained = {id(each) for each in encoder.parameters()} if encoder is not None else set()
    for each in network.parameters():
        groups.setdefault((id(each) in pretrained, each.ndim > 1), []).append(each)
    return [
        {
            "params": members,
            "lr": plan.rate * (plan.slower if is_pretrained else 1.0),
            "weight_decay": plan.decay if decays else 0.0,
        }
        for (is_pretrained, decays), members in groups.items()
    ]


def _freeze(network: TrainableNetwork, count: int) -> None:
    """Freeze the first stages, including the statistics of their normalisation."""
    for stage in network.stages()[:count]:
        stage.eval()
        for each in stage.parameters():
            each.requires_grad_(False)


@contextlib.contextmanager
def _borrowed(network: TrainableNetwork, weights: Mapping[str, Tensor]) -> Iterator[TrainableNetwork]:
    """A context in which the network evaluates with other weights; its own are restored."""
    own = {name: value.detach().clone() for name, value in network.state_dict().items()}
    network.load_state_dict(dict(weights))
    network.eval()
    try:
        yield network
    finally:
        network.load_state_dict(own)
        network.train()


def _mixed(device: torch.device, network: TrainableNetwork) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision where it helps: on a GPU with bfloat16, which needs no scaling of the loss.

    Not for a network that computes positions: 300.5 px is 300 or 302 in bfloat16.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported() and not network.works_out_places:
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()


def stacked(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Stack the arrays of a batch; arrays with fewer rows (of boxes) are padded with rows of NaN."""
    rows = max(len(each) for each in arrays)
    if all(len(each) == rows for each in arrays):
        return np.stack(arrays)
    out = np.full((len(arrays), rows, *arrays[0].shape[1:]), np.nan, np.float32)
    for place, each in zip(out, arrays, strict=True):
        place[: len(each)] = each
    return out


def _listed(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _float(outputs: Any) -> Any:
    """The same outputs in 32 bits: losses are sums over many pixels."""
    if isinstance(outputs, Mapping):
        return {name: each.float() for name, each in outputs.items()}
    return outputs.float() if isinstance(outputs, Tensor) else type(outputs)(each.float() for each in outputs)

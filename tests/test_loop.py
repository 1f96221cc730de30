"""The training loop: it learns, goes on after a kill to the same weights, and stops where it can't go on."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ecodetect.annotations.sample import Objects, Sample  # noqa: E402
from ecodetect.bundle import file as bundle  # noqa: E402
from ecodetect.bundle.card import Card, Scaling  # noqa: E402
from ecodetect.detectors import heatmap  # noqa: E402
from ecodetect.detectors.learned import Answer, NetworkKind  # noqa: E402
from ecodetect.metrics import average_precision  # noqa: E402
from ecodetect.training import checkpoint, loop, selection  # noqa: E402
from ecodetect.training.loop import Fitted, Progress, TrainingError, fit  # noqa: E402
from ecodetect.training.planning import Schedule  # noqa: E402
from ecodetect.training.processes import Processes  # noqa: E402
from ecodetect.training.selection import RankedMatches  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def looks_at_few() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOOKED_AT", 4)
        patch.setattr(loop, "LIGHT_FROM", 4)
        yield


CARD = Card(
    name="spots",
    detector="heatmap",
    options={"network": {"kind": "unet", "width": 4, "depth": 2, "up": 1}, "sigma_px": 2.0},
    bands=("grey",),
    scaling=Scaling(offset=(0.0,), span=(1.0,)),
    unit="px",
    largest=12.0,
    classes=("spot",),
)
PLAN = Schedule(size_px=48, batch=2, steps=12, every=4, rate=0.01, within_px=4.0, seed=3, workers=2)


def spots(rng: np.random.Generator, size: int, count: int = 4, known: bool = True) -> Sample:
    """Bright spots on noise."""
    xy = rng.uniform(6, size - 6, (count, 2))
    y, x = np.mgrid[:size, :size] + 0.5
    square = (x - xy[:, 0, None, None]) ** 2 + (y - xy[:, 1, None, None]) ** 2
    image = np.exp(-square / 8).sum(axis=0) * 2 + rng.normal(0, 0.1, (size, size))
    yes = np.ones((size, size), bool)
    objects = Objects.about(xy, np.full((count, 2), np.nan), np.zeros(count, np.int64), np.zeros(count))
    return Sample(image.astype(np.float32)[None], yes, yes & known, ~yes, objects)


class Spots:
    """Data made up as they are asked for."""

    def __init__(self, pieces: int = 3, count: int = 4, known: bool = True) -> None:
        self.count, self.known = count, known
        self.validation = [spots(np.random.default_rng([9, n]), 62, count) for n in range(pieces)]

    def chip(self, rng: np.random.Generator) -> Sample:
        return spots(rng, 56, self.count, self.known)


def run(
    folder: Path,
    *,
    plan: Schedule = PLAN,
    data: Any = None,
    kind: NetworkKind = heatmap.KIND,
    resume: bool = False,
    processes: Processes | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Fitted:
    torch.manual_seed(7)
    return fit(
        kind,
        heatmap.network(CARD),
        CARD,
        data or Spots(),
        plan,
        checkpoint.Folder(folder, resume=resume),
        processes=processes,
        progress=progress,
    )


def weights_of(fitted: Fitted) -> Mapping[str, Any]:
    return fitted.bundle.weights


def assert_same_weights(one: Fitted, other: Fitted) -> None:
    assert one.bundle.hash == other.bundle.hash
    assert [e.loss for e in one.history] == [e.loss for e in other.history]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A training that nobody disturbs."""
    return run(tmp_path_factory.mktemp("whole"))


def test_the_loss_falls(whole: Fitted) -> None:
    assert len(whole.history) == 3
    assert whole.history[-1].loss < 0.9 * whole.history[0].loss


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    seen: list[Progress] = []
    fitted = run(tmp_path, plan=replace(PLAN, batch=4, steps=120, every=30), progress=seen.append)
    assert fitted.history[-1].loss < fitted.history[0].loss / 2
    assert fitted.validation.f1 > 0.85
    assert fitted.validation.n_truths == 12
    assert fitted.training.f1 > 0.8
    assert 0.02 < fitted.bundle.card.thresholds["f1"][0] < 1
    assert seen[-1].step == seen[-1].steps == 120
    assert seen[-1].seconds_left == 0
    # What lies in the folder meanwhile is a bundle that can be scanned with.
    best = bundle.read(tmp_path / "best.safetensors")
    assert all((best.weights[name] == each).all() for name, each in fitted.bundle.weights.items())


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path: Path, whole: Fitted) -> None:
    other = run(tmp_path / "b", plan=replace(PLAN, workers=3))
    assert_same_weights(whole, other)
    for name in ("a", "b"):
        bundle.write(tmp_path / f"{name}.safetensors", whole.bundle if name == "a" else other.bundle)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    third = run(tmp_path / "c", plan=replace(PLAN, seed=4))
    assert third.bundle.hash != whole.bundle.hash


class Killed(BaseException):
    """Stands for kill -9: nothing in the loop catches it."""


@pytest.mark.parametrize("step", [3, 7, 12])
def test_resuming_leads_to_the_same_weights(tmp_path: Path, whole: Fitted, step: int) -> None:
    def kill(progress: Progress) -> None:
        if progress.step == step:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "killed", progress=kill)
    assert_same_weights(run(tmp_path / "killed", resume=True), whole)
    # What is done is not done again.
    assert_same_weights(run(tmp_path / "killed", resume=True, progress=kill_always), whole)


SLOWLY = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_loop
test_loop.loop.LOOKED_AT, test_loop.loop.LIGHT_FROM = 4, 4
test_loop.run(Path(sys.argv[2]), progress=lambda progress: time.sleep(0.2))
"""


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.1, 0.6])
def test_a_process_killed_in_mid_epoch_resumes_to_the_same_weights(tmp_path: Path, delay: float) -> None:
    whole = run(tmp_path / "whole")
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, str(Path(__file__).parent), str(folder)])
    until = time.monotonic() + 120
    while not (folder / "last.safetensors").exists() and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(delay)  # an epoch takes 0.8 s or more
    process.kill()
    process.wait()
    assert (folder / "last.safetensors").exists()
    seen: list[int] = []
    assert_same_weights(run(folder, resume=True, progress=lambda p: seen.append(p.step)), whole)
    assert 1 < seen[0] <= 9


def kill_always(progress: Progress) -> None:
    raise Killed


def test_hard_negatives_are_found_and_survive_a_kill(tmp_path: Path) -> None:
    # Bright spots on ground known to be empty: each is a false detection until it is learned.
    class Deceiving(Spots):
        def chip(self, rng: np.random.Generator) -> Sample:
            sample = spots(rng, 56, 4)
            return replace(sample, objects=sample.objects[:2])

    whole = run(tmp_path / "whole", data=Deceiving())
    facts = checkpoint.read(tmp_path / "whole" / "last.safetensors", key=_key(tmp_path / "whole")).facts
    assert facts["hard"]

    def kill(progress: Progress) -> None:
        if progress.step == 10:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "killed", data=Deceiving(), progress=kill)
    assert_same_weights(run(tmp_path / "killed", data=Deceiving(), resume=True), whole)


def _key(folder: Path) -> str:
    import json

    from safetensors import safe_open

    with safe_open(folder / "last.safetensors", framework="numpy") as file:
        return str(json.loads(file.metadata()[checkpoint.KEY])["key"])


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match="other data or settings"):
        run(tmp_path, plan=replace(PLAN, rate=0.02), resume=True)
    (tmp_path / "last.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(checkpoint.CheckpointError, match="can't be read"):
        run(tmp_path, resume=True)


def failing(step: int, part: str) -> NetworkKind:
    """The detector with a loss, or a gradient, that isn't a number from some step on."""
    calls = [0]

    def losses(outputs: Any, targets: Mapping[str, Any], card: Card) -> dict[str, Any]:
        found = heatmap.losses(outputs, targets, card)
        calls[0] += 1
        if calls[0] > step:
            bad = math.nan if part == "loss" else outputs.sum() * 0
            found["bad"] = outputs.sum() * math.nan if part == "loss" else torch.sqrt(bad)
        return found

    return replace(heatmap.KIND, losses=losses)


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good(tmp_path: Path, part: str) -> None:
    with pytest.raises(TrainingError, match=r"in step \d+.*best\.safetensors"):
        run(tmp_path, kind=failing(6, part))
    kept = bundle.read(tmp_path / "best.safetensors")
    assert all(np.isfinite(each).all() for each in kept.weights.values())
    with pytest.raises(TrainingError, match="nothing was learned"):
        run(tmp_path / "other", kind=failing(2, part))


@pytest.mark.parametrize("known", [True, False])
def test_empty_images_train_without_a_nan(tmp_path: Path, known: bool) -> None:
    fitted = run(tmp_path, data=Spots(count=0, known=known))
    assert all(math.isfinite(epoch.loss) for epoch in fitted.history)
    assert math.isnan(fitted.history[-1].f1)
    assert fitted.validation.n_truths == 0


def test_without_validation_thresholds_come_from_training(tmp_path: Path) -> None:
    fitted = run(tmp_path, plan=replace(PLAN, batch=4, steps=45, every=45), data=Spots(pieces=0))
    assert math.isnan(fitted.validation.f1)
    assert fitted.training.f1 > 0.5
    assert fitted.bundle.card.thresholds["f1"] != (0.5,)


def test_it_stops_early_where_nothing_improves(tmp_path: Path) -> None:
    fitted = run(tmp_path, plan=replace(PLAN, steps=400, every=2, rate=1e-9, patience=2, mines=False))
    assert fitted.stopped
    assert len(fitted.history) < 50


def test_frozen_stages_stay(tmp_path: Path) -> None:
    torch.manual_seed(7)
    network = heatmap.network(CARD)
    before = {name: each.clone() for name, each in network.state_dict().items()}
    fitted = fit(heatmap.KIND, network, CARD, Spots(), replace(PLAN, frozen=1), checkpoint.Folder(tmp_path))
    for name, each in fitted.bundle.weights.items():
        is_same = np.array_equal(each, before[name].numpy())
        assert is_same == name.startswith("levels.0."), name


# -- thresholds --------------------------------------------------------------------------------------------


def judged_of(scores: Sequence[float], hits: Sequence[bool], truths: int) -> RankedMatches:
    """Detections and truths of one place."""
    n = len(scores)
    place, there = np.zeros(n, np.int64), np.array([[truths]])
    return RankedMatches(np.array(scores, float), np.zeros(n, np.int64), np.array(hits, bool), place, there)


def detector(rng: np.random.Generator, apart: float, n: int = 120, per_place: int = 6) -> RankedMatches:
    """What a made detector finds of about `n` individuals: scores of true and false ones lie `apart`."""
    places = n // per_place
    true, false = rng.poisson(per_place, places), rng.poisson(per_place, places)
    place = np.concatenate([np.repeat(np.arange(places), true), np.repeat(np.arange(places), false)])
    is_true = np.arange(len(place)) < true.sum()
    raw = np.where(is_true, apart, -apart) + rng.normal(0, 0.4, places)[place] + rng.normal(0, 1, len(place))
    label = np.zeros(len(place), np.int64)
    return RankedMatches(1 / (1 + np.exp(-raw)), label, is_true, place, true[:, None])


def test_thresholds_for_f1_and_for_counts() -> None:
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    judged = judged_of(scores, [True, True, False, True, False, False], 5)
    chosen = selection.choose(judged, otherwise=0.5)
    assert 0.5 < chosen["f1"][0] <= 0.6
    assert judged.rates(chosen["f1"]).f1 == pytest.approx(6 / 9)
    assert judged.rates(chosen["count"]).n_detections == 5
    # Without anything to choose from.
    assert selection.choose(judged_of([], [], 3), otherwise=0.3)["f1"] == (0.3,)
    assert selection.choose(judged_of([0.4], [False], 0), otherwise=0.3)["count"] == (0.3,)
    assert selection.counted(judged_of([0.4], [False], 0), (0.3,)) is None
    # Equal scores can't be told apart by a threshold.
    even = judged_of([0.5] * 4, [True, False, True, False], 2)
    assert even.rates(selection.choose(even, otherwise=0.9)["f1"]).n_detections == 4


def test_thresholds_of_few_individuals_do_well_elsewhere() -> None:
    """Of 120 individuals: F1 on other ground is higher than with the threshold of the best F1 among them."""
    rng = np.random.default_rng(0)
    rest = detector(rng, 0.9, 6000)
    now, plain, offs = [], [], []
    for _ in range(40):
        seen = detector(rng, 0.9)
        order = np.argsort(-seen.score)
        f1 = 2 * np.cumsum(seen.is_true[order]) / (np.arange(1, len(order) + 1) + seen.n_truths[0])
        plain.append(rest.rates((seen.score[order][f1.argmax()],)).f1)
        chosen = selection.choose(seen, otherwise=0.5)
        now.append(rest.rates(chosen["f1"]).f1)
        rates = rest.rates(chosen["count"])
        offs.append(rates.n_detections / rates.n_truths - 1)
    assert np.mean(now) > np.mean(plain)
    assert abs(np.mean(offs)) < 0.05


def test_the_interval_of_counts_holds_what_other_ground_shows() -> None:
    """With thresholds chosen on the same individuals, in 95 % of the cases; here at least in 90 %."""
    rng = np.random.default_rng(1)
    rest = detector(rng, 1.2, 12_000)
    held = 0
    for _ in range(60):
        seen = detector(rng, 1.2)
        cut = selection.choose(seen, otherwise=0.5)["count"]
        told = selection.counted(seen, cut)
        rates = rest.rates(cut)
        assert told is not None
        assert told.interval.n == 20
        held += told.interval.low <= rates.n_detections / rates.n_truths - 1 <= told.interval.high
    assert held >= 54


def test_counts_of_many_individuals_stay_unbiased() -> None:
    """Of a detector whose best F1 lies at many more detections than individuals, counts are right."""
    seen = detector(np.random.default_rng(2), 0.4, 6000)
    chosen = selection.choose(seen, otherwise=0.5)
    assert seen.rates(chosen["f1"]).n_detections > 1.2 * seen.n_truths[0]
    assert seen.rates(chosen["count"]).n_detections == pytest.approx(seen.n_truths[0], rel=0.02)


def drawn(rng: np.random.Generator, quality: Sequence[float], n: int = 120) -> list[tuple[float, ...]]:
    """Precision of epochs on the same ground: each finds the same individuals, more or less clearly."""
    ground = detector(rng, 0.0, n)
    raw = np.log(ground.score / (1 - ground.score))
    found = []
    for apart in quality:
        moved = np.where(ground.is_true, apart, -apart) + raw + rng.normal(0, 0.5, len(raw))
        found.append(selection.drawn_precision(replace(ground, score=1 / (1 + np.exp(-moved)))))
    return found


def test_the_epoch_kept_is_good_elsewhere_not_the_best_by_chance() -> None:
    rising, falling = [0.2, 0.6, 0.9, 1.0, 1.05, 1.06], [0.2, 1.0, 1.0, 0.9, 0.7, 0.5]
    rng = np.random.default_rng(3)
    late = [selection.last_as_good(drawn(rng, rising)) for _ in range(20)]
    assert np.mean(late) > 4.3
    assert min(late) >= 2
    early = [selection.last_as_good(drawn(rng, falling)) for _ in range(20)]
    assert 1 <= np.mean(early) <= 2.7
    assert max(early) <= 3


def test_without_a_truth_the_last_epoch_is_kept_and_ties_go_to_the_later() -> None:
    assert selection.last_as_good([(), (), ()]) == 2
    one = selection.drawn_precision(detector(np.random.default_rng(4), 1.0))
    assert selection.last_as_good([one, one, one]) == 2
    assert selection.drawn_precision(judged_of([0.4], [False], 0)) == ()


def test_precision_as_measured_is_the_area_under_the_curve() -> None:
    judged = judged_of([0.9, 0.8, 0.7, 0.6], [True, False, True, False], 4)
    exact = average_precision(judged.score, judged.is_true, 4).all_point
    assert selection.drawn_precision(judged)[0] == pytest.approx(exact)


def test_what_does_not_count_is_not_judged() -> None:
    base = spots(np.random.default_rng(0), 60, 0)
    known, ignored = base.known.copy(), base.ignored.copy()
    known[:, 40:] = False
    ignored[:20] = True
    xy = np.array([[10.0, 30.0], [50.0, 30.0], [10.0, 10.0]])
    objects = Objects.about(xy, np.full((3, 2), np.nan), np.zeros(3, np.int64), np.zeros(3))
    sample = replace(base, known=known, ignored=ignored, objects=objects)
    places = np.array(
        [
            [11.0, 30.0],  # true
            [51.0, 30.0],  # true, where annotation isn't complete
            [50.0, 50.0],  # nothing there, but that isn't known
            [30.0, 50.0],  # false
            [10.0, 11.0],  # ignored
            [10.0, 21.0],  # nowhere ignored itself, but near enough to one that is
        ]
    )
    found = Answer(places, np.linspace(0.9, 0.4, 6), np.zeros(6, np.int64))
    judged = selection.judge(found, sample, 11.5, 1, parts=2)
    assert judged.n_truths.tolist() == [2]
    assert int(judged.is_true.sum()) == 2
    assert len(judged.score) == 3
    # Of two rows and columns of places: what is there, and what was found.
    assert judged.truths[:, 0].tolist() == [0, 0, 1, 1]
    assert judged.place.tolist() == [2, 3, 3]


def test_boxes_are_judged_by_their_overlap() -> None:
    base = spots(np.random.default_rng(0), 60, 0)
    ignored = base.ignored.copy()
    ignored[:20] = True
    truths = np.array([[5.0, 30, 15, 40], [30, 30, 50, 50], [40, 5, 50, 15], [np.nan] * 4])
    middle = np.nan_to_num((truths[:, :2] + truths[:, 2:]) / 2, nan=55.0)
    objects = Objects(middle, truths, np.zeros(4, np.int64), np.zeros(4))
    boxes = np.array(
        [
            [6.0, 30, 15, 40],  # true
            [30, 30, 50, 39],  # false: less than half of the truth
            [32, 30, 50, 50],  # true, though less sure
            [30, 31, 50, 50],  # the same again: false
            [40, 6, 50, 15],  # of a truth that doesn't count
            [20, 5, 28, 12],  # on ignored ground
        ]
    )
    sample = replace(base, ignored=ignored, objects=objects)
    judged = selection.judge(Answer(boxes, np.linspace(0.9, 0.4, 6), np.zeros(6, np.int64)), sample, 0.0, 1)
    assert judged.n_truths.tolist() == [2]  # one without a size can't be found as a box
    assert judged.is_true.tolist() == [True, False, True, False]


def test_a_class_without_a_truth_takes_the_middle_of_the_others() -> None:
    judged = RankedMatches(
        np.array([0.8, 0.6, 0.9]),
        np.array([0, 0, 1]),
        np.array([True, False, False]),
        np.zeros(3, np.int64),
        np.array([[1, 0, 0]]),
    )
    chosen = selection.choose(judged, otherwise=0.1)
    assert chosen["f1"][1] == chosen["f1"][2] == chosen["f1"][0]
    assert 0.6 < chosen["f1"][0] <= 0.8


TOGETHER = """
import sys
from pathlib import Path
import test_loop
from ecodetect.training.processes import joined
test_loop.loop.LOOKED_AT, test_loop.loop.LIGHT_FROM = 4, 4
processes = joined("cpu")
fitted = test_loop.run(Path(sys.argv[1]), plan=test_loop.LONG, processes=processes)
told = f"{processes.rank} {processes.count} {fitted.bundle.hash} {fitted.validation.f1}"
Path(sys.argv[1] + f".{processes.rank}").write_text(told)
"""
LONG = replace(PLAN, batch=4, steps=60, every=15)


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    script = tmp_path / "together.py"
    script.write_text(TOGETHER, encoding="utf-8")
    here = {"PYTHONPATH": str(Path(__file__).parent)}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [*launcher, script, tmp_path / "two"], capture_output=True, text=True, env={**os.environ, **here}
    )
    assert done.returncode == 0, done.stderr
    one, two = [(tmp_path / f"two.{rank}").read_text(encoding="utf-8").split() for rank in (0, 1)]
    assert one[:2] == ["0", "2"]
    assert two[:2] == ["1", "2"]
    assert one[2:] == two[2:]
    # Half the chips each, the same in all: as good as alone, though sums and normalisation differ.
    alone = run(tmp_path / "one", plan=LONG)
    assert float(one[3]) > 0.7
    assert abs(float(one[3]) - alone.validation.f1) < 0.15
    assert bundle.read(tmp_path / "two" / "best.safetensors").hash == one[2]

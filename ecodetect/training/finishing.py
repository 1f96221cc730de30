"""The final bundle of a training: its figures, and the ground they were measured on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice

from ecodetect.annotations.places import places
from ecodetect.annotations.sample import Sample
from ecodetect.bundle.file import Bundle
from ecodetect.detectors.learned import Answer, Kind, NetworkKind
from ecodetect.networks.network import TrainableNetwork
from ecodetect.runtime import torch_network, tracing
from ecodetect.training.case import Case
from ecodetect.training.loop import Fitted
from ecodetect.training.selection import (
    FEW,
    RankedMatches,
    choose,
    counted,
    judge,
    parts_of,
    pooled,
)
from ecodetect.training.without_network import Chosen

Answers = Callable[[Bundle, Sequence[Sample]], Iterator[Answer]]

_LOOKED_AT = 24  # samples that are searched for one with individuals, to compare tilings on


def finished(fitted: Fitted | Chosen, case: Case, criterion: str) -> Bundle:
    """The bundle with everything known after training."""
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
    if fitted.counted is not None:
        interval = fitted.counted.interval
        metric |= {
            "count_off": _figure(fitted.counted.off),
            "count_low": _figure(interval.low),
            "count_high": _figure(interval.high),
            "places": interval.n,
        }
    return Bundle(replace(card, trained_on=(entry,), metrics=(metric,)), fitted.bundle.weights)


def rejudged(
    fitted: Fitted, answers: Answers, training: Sequence[Sample], validation: Sequence[Sample]
) -> Fitted:
    """Rates and thresholds of what a scan finds, where `decode` alone doesn't give it."""
    done = fitted.bundle
    classes = len(done.card.classes)

    def judged(samples: Sequence[Sample]) -> RankedMatches:
        pairs, parts = zip(answers(done, samples), samples, strict=True), parts_of(len(samples))
        return pooled((judge(each, sample, 0.0, classes, parts) for each, sample in pairs), classes)

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
        counted=counted(unseen, thresholds["count"]),
    )


def completed(
    done: Bundle,
    kind: Kind,
    network: TrainableNetwork | None,
    training: Sequence[Sample],
    validation: Sequence[Sample],
) -> Bundle:
    """The bundle with the detector's own measurements on annotated ground, if any, and its locality."""
    if kind.calibrated is not None:
        done = Bundle(kind.calibrated(done, training, validation), done.weights)
    if kind.measured is not None:
        told = kind.measured(done, validation if len(validation) else training)
        done = Bundle(replace(done.card, metrics=(*done.card.metrics, told)), done.weights)
    done = _measured(done, kind, network, _fullest(chain(validation, training)))
    if not isinstance(kind, NetworkKind):
        return done
    graphed, _ = tracing.with_graphs(done, lambda: kind.network(done.card, None))
    return graphed


def _fullest(samples: Iterable[Sample]) -> Sample | None:
    """The sample with the most individuals among the first few; None where there is none."""
    return max(islice(samples, _LOOKED_AT), key=lambda sample: len(sample.objects), default=None)


def _measured(done: Bundle, kind: Kind, network: TrainableNetwork | None, sample: Sample | None) -> Bundle:
    """The bundle with the results of locality tests on a sample of the ground.

    network : None: without one, detections may depend on the whole image.
    """
    card = replace(done.card, reach_px="whole image")
    if network is not None:
        card = replace(done.card, reach_px=torch_network.reach(network.cpu(), len(done.card.bands)))
    image = None if sample is None else sample.image
    agreement = kind.measure_agreement(Bundle(card, done.weights), image)
    return Bundle(replace(card, agreement=agreement), done.weights)


def _figure(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)

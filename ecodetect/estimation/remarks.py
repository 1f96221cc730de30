"""Notes that stand beside a number, never instead of it: where its interval may be too narrow."""

from __future__ import annotations

from collections.abc import Iterator

from ecodetect.estimation.results import ClassEstimate, Estimate
from ecodetect.notes import Note
from ecodetect.wording import counted, figure

_FAR_KM = 10.0
_MANY = 0.05  # share of individuals of which the checker isn't sure
_MANY_UNUSABLE = 0.10


def remarks(made: Estimate) -> Iterator[Note]:
    """Notes on an estimate."""
    yield from _of_plots(made)
    for each in made.every:
        for note in _of_number(made, each):
            yield note.of(each.name if len(made.every) > 1 else "")


def _of_plots(made: Estimate) -> Iterator[Note]:
    if made.set_aside:
        text = (
            f"Done, but not used: plots {_listed(made.set_aside)}, because plots before them in their strata"
            " aren't done; with them the sample would be one of choice."
        )
        yield Note("plots-set-aside", text, kind="doubt")
    looked_at = len(made.used) + len(made.unusable)
    if len(made.unusable) > _MANY_UNUSABLE * looked_at:
        text = (
            f"{len(made.unusable)} of {looked_at} plots were unusable: the number stands for their ground as"
            " if it were like the rest."
        )
        yield Note("plots-unusable", text, kind="doubt")
    if made.together.individuals is None:
        todo = f"; check {_listed(made.next)} next" if made.next else ""
        text = f"too few plots for an interval: {len(made.used)} of at least 10, and 2 in each stratum{todo}."
        yield Note("plots-too-few", text, kind="doubt")
    if made.record.apart_km > _FAR_KM and made.record.strata_by is None:
        text = (
            f"The rasters lie up to {made.record.apart_km:.3g} km apart, and detectors differ between sites:"
            " draw plots with strata for each."
        )
        yield Note("sites-apart", text, kind="doubt", parameter="strata_by")
    if made.record.trained:
        text = (
            f"{counted(made.record.trained, 'plot')} of {len(made.record.plots)} lie within about 1 km of"
            " where the model was trained: the number stays valid unless these very plots were trained on,"
            " but precision and recall don't hold elsewhere."
        )
        yield Note("trained-here", text, kind="doubt")
    if made.observers is not None:
        text = (
            "What is hard to see for one person is hard for the other, so two persons' agreement is too"
            " favourable."
        )
        yield Note("observers-agree", text)


def _of_number(made: Estimate, each: ClassEstimate) -> Iterator[Note]:
    if each.unsure > _MANY * max(each.counted, 1):
        text = f"The checker is not sure about {each.unsure} of {each.counted} individuals in the plots."
        yield Note("individuals-unsure", text, kind="doubt")
    number, given = each.individuals, each.abundance
    if number is None or given is None:
        return
    n, recall = len(made.used), 1.0 if each.recall is None else each.recall.value
    clumping = given.dispersion.missed
    if n < 20 and (clumping > 3 or recall < 0.5):
        text = (
            f"With {n} plots and missed individuals in clumps the interval can be too narrow (measured: 86 to"
            " 93 % instead of 95 %): check at least 20."
        )
        yield Note("plots-few", text, kind="doubt")
    if n >= 20 and clumping > 5 and recall < 0.3:
        text = (
            "The detector misses most individuals, and in clumps: measured, such intervals hold 87 to 93 %"
            " instead of 95 %. A better detector or more plots."
        )
        yield Note("detector-misses-most", text, kind="doubt")
    if number.half_width > number.value:
        text = f"This says little more than that there are at least {each.counted:,}."
        yield Note("interval-wide", text, kind="doubt")
    yield from _of_empty_ground(made, each)
    if not given.uses_detections:
        text = "The detections were not used: with them the estimate would be less exact."
        yield Note("detections-unused", text, kind="choice")


def _of_empty_ground(made: Estimate, each: ClassEstimate) -> Iterator[Note]:
    given, record = each.abundance, made.record
    assert given is not None
    classes = record.classes if each is made.together else (each.name,)
    empty = {
        stratum.name for stratum in record.strata if not sum(stratum.detections[name] for name in classes)
    }
    cells = sum(stratum.cells for stratum in record.strata if stratum.name in empty)
    plots = [row for row in made.plots if row.is_used and row.stratum in empty]
    seen = sum(row.counts[name][0] for row in plots for name in classes if name in row.counts)
    up = given.distances.up_empty
    if plots and not seen and up > 0:
        text = (
            f"None in {len(plots)} of {counted(cells, 'cell')} without detections: up to {figure(up)} may be"
            " there."
        )
        yield Note("empty-ground", text)
    if up**2 > 0.5 * given.distances.total_up**2 and up > 0:
        text = "Most of the upper uncertainty is ground without detections: the next plots belong there."
        yield Note("empty-ground-uncertain", text)


def _listed(numbers: tuple[int, ...]) -> str:
    """`8, 9 and 12`."""
    names = [str(number) for number in numbers[:10]]
    if len(numbers) > 10:
        return f"{', '.join(names)} and {len(numbers) - 10} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))

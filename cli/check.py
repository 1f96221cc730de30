"""`ecodetect check`: what training would see of rasters and annotations, before any time is spent on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import click

from ecodetect.wording import counted

from . import options
from .terminal import say, say_json, sentence


@click.command()
@click.argument("paths", metavar="(RASTER ANNOTATIONS)... | FOLDER", nargs=-1, required=True)
@options.beginning
@options.annotation
@options.raster
@options.values
@click.option(
    "--picture",
    metavar="PNG",
    help="Draw the annotations, the ground where they are complete, and the split.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all facts as JSON.")
@options.timeout
@options.strict
def check(paths: tuple[str, ...], picture: str | None, as_json: bool, **given: Any) -> int:
    """Preview the data that training would use, and report problems.

    Prints which annotations would be used, where they count as complete, and how ground would be split into
    training and validation. Give rasters and annotations in turn, or a folder: a file of annotations for each
    image (in points/, labels/ or annotations/ beside images/, or beside each image), or one file for all. The
    exit code is 2 if training would refuse.

    \b
    Examples:
      ecodetect check ortho.tif field.gpkg --complete plots.gpkg --picture check.png
      ecodetect check trees/ -m my_trees.safetensors
    """
    from ecodetect.inspection.training_data import check as run
    from ecodetect.pictures import files as picture_files

    if picture is not None:
        picture_files.replaceable(picture, overwrite=False)
    asked = options.asked(given)
    settings = options.pairs(given.pop("settings"))
    facts = run(paths, asked, settings=settings, picture=picture, **given)
    if as_json:
        say_json(facts)
    else:
        for name, text in lines(facts):
            say(f"{name:<12} {text}")
    options.tell(facts["notes"], shown=False)  # they are among the lines
    for problem in facts["problems"]:
        say(f"error: {sentence(problem)}", to_stderr=True)
    return 2 if facts["problems"] else 0


def lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The facts for people: a heading and its text."""
    rasters, marked, sizes = facts["rasters"], facts["annotations"], facts["sizes"]
    yield "rasters", _rasters(rasters)
    for kind in rasters["bands"][:3]:
        more = f" ({counted(kind['rasters'], 'raster')})" if len(rasters["bands"]) > 1 else ""
        yield "bands", ", ".join(kind["bands"]) + more
    kinds = [counted(marked[kind], kind[:-1]) for kind in ("points", "shapes") if marked[kind]]
    yield "annotations", f"{marked['kept']} to learn" + (f" ({', '.join(kinds)})" if kinds else "")
    if marked["ignored"] or marked["ignored_shapes"]:
        kinds = [counted(marked["ignored"], "annotation")] if marked["ignored"] else []
        kinds += [counted(marked["ignored_shapes"], "shape") + " of --ignore"] * bool(
            marked["ignored_shapes"]
        )
        yield "ignored", ", ".join(kinds)
    for reason, count in marked["left_out"].items():
        yield "left out", f"{count} {reason}"
    if len(marked["classes"]) > 1 or "object" not in marked["classes"]:
        yield "classes", ", ".join(f"{name} {count}" for name, count in marked["classes"].items())
    if marked["empty_rasters"]:
        yield "empty", f"{counted(marked['empty_rasters'], 'raster')} with nothing to learn"
    yield "sizes", _sizes(sizes, marked["kept"])
    if marked["accuracy_m"] is not None:
        known = counted(marked["with_accuracy"], "annotation")
        yield "accuracy", f"{marked['accuracy_m']:.3g} m in the median, of {known}"
    yield "complete", _complete(facts["complete"])
    if facts["seen_at"] is not None:
        yield from _seen(facts["seen_at"])
    if facts["split"] is not None:
        yield "split", _split(facts["split"])
    if facts["cost"] is not None:
        yield "training", _cost(facts["cost"])
    if facts["model"] is not None:
        yield "model", f"{facts['model']['name']} ({facts['model']['detector']})"
        yield from (("", text) for text in facts["model"]["misfits"] or ["It fits these data."])
    if facts["picture"] is not None:
        yield "picture", f"{facts['picture']['raster']} is drawn in {facts['picture']['file']}"
    yield from (("note", sentence(note)) for note in facts["notes"])


def _rasters(rasters: dict[str, Any]) -> str:
    sizes = rasters["sizes_px"]
    width, height, _ = sizes[0]
    text = f"{rasters['count']}, " if rasters["count"] > 1 else f"{rasters['names'][0]}, "
    text += (
        f"{width} x {height} px" if len(sizes) == 1 else f"of {len(sizes)} sizes, most {width} x {height} px"
    )
    if rasters["gsd_m"] is None:
        return text + ", size of a pixel unknown"
    low, high = rasters["gsd_m"]
    return text + (
        f", pixels of {low:.3g} m" if high < 1.02 * low else f", pixels of {low:.3g} to {high:.3g} m"
    )


def _sizes(sizes: dict[str, Any], kept: int) -> str:
    if not sizes["known"]:
        return "unknown: points without a radius (state --radius, or give a column radius_m)"
    low, middle, high = sizes["px"]
    text = f"{middle:.3g} px wide in the median, 90 % are {low:.3g} to {high:.3g} px"
    if sizes["m"] is not None:
        low_m, middle_m, high_m = sizes["m"]
        text = (
            f"{middle_m:.3g} m wide in the median, 90 % are {low_m:.3g} to {high_m:.3g} m ({middle:.3g} px)"
        )
    return text if sizes["known"] == kept else f"{text}; known of {sizes['known']}"


_BY = {
    "polygons": "inside the polygons of --complete",
    "image": "all over the image",
    "hull": "within the hull of the annotations, widened by half an object; beyond is unknown",
    "nothing": "nowhere, for the polygons of --complete don't meet it: nothing is learned from it",
}


def _complete(complete: dict[str, Any]) -> str:
    ways = complete["by"]
    text = "; ".join(
        _BY[by] + (f" ({counted(count, 'raster')})" if len(ways) > 1 or count > 1 else "")
        for by, count in ways.items()
    )
    text += f": {100 * complete['share']:.3g} % of the pixels"
    if complete["area_ha"] is not None:
        text += f", {complete['area_ha']:.3g} ha"
    if complete["annotations_outside"]:
        text += f"; annotations outside of it: {complete['annotations_outside']}"
    return text


def _seen(seen: dict[str, Any]) -> Iterator[tuple[str, str]]:
    where = "the rasters' own pixels"
    if seen["gsd"] is not None:
        is_own = seen["unit"] == "px"
        where = f"{seen['gsd']:.3g} " + ("of their pixels in one" if is_own else f"{seen['unit']} per pixel")
    if seen["read_at_m"] is not None and seen["unit"] != "px":
        low, high = (f"{side:.4g}" for side in seen["read_at_m"])
        where = (low if low == high else f"{low} to {high}") + " m per pixel"
    text = f"{', '.join(seen['bands'])} at {where}"
    if seen["size_px"] is not None:
        text += f", objects {seen['size_px'][1]:.3g} px wide in the median"
    if seen["spacing_px"] is not None:
        text += f", nearest neighbours {seen['spacing_px'][2]:.3g} px apart"
    yield "seen", text
    yield "chips", f"{seen['chips']} of {seen['chip_px']} x {seen['chip_px']} px cover what is known"


def _split(found: dict[str, Any]) -> str:
    training, validation = found["training"], found["validation"]
    text = f"{found['method']}: {counted(training['annotations'], 'annotation')} for training"
    text += f" ({counted(training['rasters'], 'raster')}), {validation['annotations']} for validation"
    text += f" ({counted(validation['rasters'], 'raster')})"
    return text + (f", {found['between']} in the strip between" if found["between"] else "")


def _cost(cost: dict[str, Any]) -> str:
    memory = f"{cost['memory_mb'] / 1000:.2g} GB"
    cores = counted(cost["cores"], "core")
    return f"about {_roughly(cost['seconds'])} for a small network on {cores}, {memory} (rough guesses)"


def _roughly(seconds: float) -> str:
    """A time with one digit, as a guess has."""
    for unit, length, most in (("second", 1, 60), ("minute", 60, 3600), ("hour", 3600, math.inf)):
        count = int(float(f"{max(seconds / length, 1):.0e}"))
        if count * length < most:
            return counted(count, unit)
    raise AssertionError("hours have no end")

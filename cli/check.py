"""`ecodetect check`: what training would see of rasters and annotations, before any time is spent on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from . import options


@click.command()
@click.argument("paths", metavar="(RASTER ANNOTATIONS)... | FOLDER", nargs=-1, required=True)
@click.option("-m", "--model", metavar="BUNDLE", help="A model that would be trained further.")
@click.option("--class-column", metavar="NAME", help="Column with the class; found by its name if not given.")
@click.option(
    "--radius",
    metavar="LENGTH",
    help="Of individuals marked by a point: 2m, 12px; contour: from the outline around each.",
)
@click.option(
    "--complete",
    metavar="VECTOR|image",
    help="Polygons inside of which all individuals are annotated; `image`: the whole raster.",
)
@click.option("--complete-layer", metavar="NAME", help="Layer of the --complete file, if it has several.")
@click.option(
    "--ignore",
    multiple=True,
    metavar="FILE|LABEL",
    help="Neither individuals nor background: a file of shapes, or a class. May be repeated.",
)
@click.option("--ignore-edge", metavar="LENGTH", help="Learn nothing so near to a raster's edge: 10px.")
@click.option(
    "--empty-images", is_flag=True, help="Images that the file doesn't name are empty, not unknown."
)
@click.option("--layer", metavar="NAME", help="Layer of the annotations, if their file has several.")
@click.option(
    "--split",
    "split_by",
    default="auto",
    show_default=True,
    metavar="HOW",
    help="Validation by `blocks` of ground, by `files`, by a column of the annotations, or `none`.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the split.")
@options.bands
@options.gsd
@click.option("--picture", metavar="PNG", help="Draw annotations, where they are complete, and the split.")
@click.option("--json", "as_json", is_flag=True, help="All facts as JSON on standard output.")
def check(
    paths: tuple[str, ...],
    model: str | None,
    class_column: str | None,
    radius: str | None,
    complete: str | None,
    complete_layer: str | None,
    ignore: tuple[str, ...],
    ignore_edge: str | None,
    empty_images: bool,
    layer: str | None,
    split_by: str,
    seed: int,
    bands: str | None,
    gsd: float | None,
    picture: str | None,
    as_json: bool,
) -> int:
    """Say what training would see: which annotations, where they are complete, how they would be split.

    Rasters with their annotations in turn, or a folder in which a file of annotations belongs to each image
    (images/ with points/, labels/, annotations/ or beside them), or one file to all. Exit code 2 if training
    would refuse.

    \b
    ecodetect check ortho.tif field.gpkg --complete plots.gpkg --picture check.png
    ecodetect check trees/ -m my_trees.safetensors
    """
    from ecodetect import pictures
    from ecodetect.checking import check as run
    from ecodetect.sizes import Length
    from ecodetect.training.sources import Asked

    if picture is not None:
        pictures.writable(picture)
    asked = Asked(
        class_column=class_column,
        radius=options.radius_of(radius),
        complete=complete,
        complete_layer=complete_layer,
        ignore=ignore,
        edge=None if ignore_edge is None else Length.parse(ignore_edge, name="--ignore-edge"),
        gsd_m=gsd,
        bands=bands,
        layer=layer,
        empty_images=empty_images,
    )
    facts = run(paths, asked, model=model, split_by=split_by, seed=seed, picture=picture)
    if as_json:
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        for name, text in lines(facts):
            click.echo(f"{name:<12} {text}")
    for problem in facts["problems"]:
        click.echo(f"error: {problem}", err=True)
    return 2 if facts["problems"] else 0


def lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The facts for people: a word and what is to be said about it."""
    from ecodetect.notes import Note

    rasters, marked, sizes = facts["rasters"], facts["annotations"], facts["sizes"]
    yield "rasters", _rasters(rasters)
    for kind in rasters["bands"][:3]:
        more = f" ({kind['rasters']} rasters)" if len(rasters["bands"]) > 1 else ""
        yield "bands", ", ".join(kind["bands"]) + more
    kinds = [_counted(marked[kind], kind[:-1]) for kind in ("points", "shapes") if marked[kind]]
    yield "annotations", f"{marked['kept']} to learn" + (f" ({', '.join(kinds)})" if kinds else "")
    if marked["ignored"] or marked["ignored_shapes"]:
        kinds = [_counted(marked["ignored"], "annotation")] if marked["ignored"] else []
        kinds += [_counted(marked["ignored_shapes"], "shape") + " of --ignore"] * bool(
            marked["ignored_shapes"]
        )
        yield "ignored", ", ".join(kinds)
    for reason, count in marked["left_out"].items():
        yield "left out", f"{count} {reason}"
    if len(marked["classes"]) > 1 or "object" not in marked["classes"]:
        yield "classes", ", ".join(f"{name} {count}" for name, count in marked["classes"].items())
    if marked["empty_rasters"]:
        yield "empty", f"{_counted(marked['empty_rasters'], 'raster')} with nothing to learn"
    yield "sizes", _sizes(sizes, marked["kept"])
    if marked["accuracy_m"] is not None:
        yield (
            "accuracy",
            f"{marked['accuracy_m']:.3g} m in the median, of {marked['with_accuracy']} annotations",
        )
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
    yield from (("note", str(Note(**note))) for note in facts["notes"])


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


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
    "nothing": "nowhere: only the annotations themselves are learned",
}


def _complete(complete: dict[str, Any]) -> str:
    ways = complete["by"]
    text = "; ".join(
        _BY[by] + (f" ({count} rasters)" if len(ways) > 1 or count > 1 else "") for by, count in ways.items()
    )
    text += f": {100 * complete['share']:.3g} % of the pixels"
    if complete["area_ha"] is not None:
        text += f", {complete['area_ha']:.3g} ha"
    if complete["annotations_outside"]:
        text += f"; {complete['annotations_outside']} annotations lie outside"
    return text


def _seen(seen: dict[str, Any]) -> Iterator[tuple[str, str]]:
    where = "the rasters' own pixels"
    if seen["gsd"] is not None:
        is_own = seen["unit"] == "px"
        where = f"{seen['gsd']:.3g} " + ("of their pixels in one" if is_own else f"{seen['unit']} per pixel")
    text = f"{', '.join(seen['bands'])} at {where}"
    if seen["size_px"] is not None:
        text += f", objects {seen['size_px'][1]:.3g} px wide in the median"
    if seen["spacing_px"] is not None:
        text += f", nearest neighbours {seen['spacing_px'][2]:.3g} px apart"
    yield "seen", text
    yield "chips", f"{seen['chips']} of {seen['chip_px']} x {seen['chip_px']} px cover what is known"


def _split(found: dict[str, Any]) -> str:
    training, validation = found["training"], found["validation"]
    text = f"{found['method']}: {training['annotations']} annotations for training"
    text += f" ({_counted(training['rasters'], 'raster')}), {validation['annotations']} for validation"
    text += f" ({_counted(validation['rasters'], 'raster')})"
    return text + (f", {found['between']} in the strip between" if found["between"] else "")


def _cost(cost: dict[str, Any]) -> str:
    minutes = cost["seconds"] / 60
    time = f"{minutes:.1g} minutes" if minutes < 10 else f"{round(minutes, -1):.0f} minutes"
    if minutes > 90:
        time = f"{minutes / 60:.1g} hours" if minutes < 600 else f"{round(minutes / 60, -1):.0f} hours"
    memory = f"{cost['memory_mb'] / 1000:.2g} GB"
    return f"some {time} for a small network on {cost['cores']} cores, {memory} (rough guesses)"

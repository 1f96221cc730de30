"""`ecodetect info`: what a raster, a layer or a model is, in the words of its users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import click

from ecodetect.wording import percent

from . import options
from .terminal import say, say_json, sentence

_MOST_CLASSES = 20  # all are in --json


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--layer", metavar="NAME", help="Describe this layer, if the file has several.")
@options.raster
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@options.timeout
@options.strict
def info(file: str, layer: str | None, as_json: bool, **raster: Any) -> int:
    """Describe a raster, a layer or a model.

    For a raster it prints the size on the ground, bands, nodata, and which models can read it; for a model,
    its card.

    \b
    Examples:
      ecodetect info ortho.tif
      ecodetect info shrubs.gpkg
      ecodetect info trees
    """

    from ecodetect.inspection.files import describe

    facts = describe(file, layer=layer, gsd_m=raster.pop("gsd"), **raster)
    notes = facts["notes"]
    options.tell(notes, shown=False)  # they are among the lines
    if as_json:
        say_json(facts)
        return 0
    say(f"{facts['file']}")
    for name, text in [*lines(facts), *(("note", sentence(replace(note, about=""))) for note in notes)]:
        say(f"  {name:<11} {text}")
    return 0


def lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What `describe` found, as lines: name and text."""
    return {"raster": _raster, "layer": _layer, "model": _model}[facts["kind"]](facts)


def _raster(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    size = f"{facts['width_px']} x {facts['height_px']} px"
    if facts["ground_m"] is not None:
        across, down = facts["ground_m"]
        size += f", {_length(across)} x {_length(down)} on the ground, {_hectares(facts['area_ha'])}"
    yield "size", size
    yield "pixel", _pixel(facts)
    yield "place", _place(facts)
    for number, band in enumerate(facts["bands"]):
        if number == 12:
            yield "", f"and {len(facts['bands']) - 12} more"
            break
        seen = "no data seen" if band["low"] is None else f"{_number(band['low'])} to {_number(band['high'])}"
        yield "" if number else "bands", f"{band['name']:<10} {seen}"
    yield "values", _values(facts)
    yield "no data", _no_data(facts)
    yield "file", _layout(facts)
    for name, answer in facts["detectors"].items():
        if answer["meant"]:
            yield (
                name,
                f"would read {', '.join(answer['bands'])}, and find what is up to {_largest(facts, answer)}",
            )
        else:
            able = "not offered" if answer["fits"] else "can't be used"
            yield name, f"{able}: {answer['why']}"


def _pixel(facts: dict[str, Any]) -> str:
    if facts["gsd_m"] is None:
        return "unknown size on the ground; state it with --gsd"
    x, y = facts["gsd_m"]
    text = (
        f"{_length(x)} on the ground"
        if abs(x - y) < 0.005 * x
        else f"{_length(x)} x {_length(y)} on the ground"
    )
    return text + (", as stated" if facts["gsd_is_stated"] else "")


def _place(facts: dict[str, Any]) -> str:
    if facts["crs"] is None:
        return "none: coordinates are " + (
            "pixels" if facts["frame"] == "pixel" else "those of the transform"
        )
    text = str(facts["crs"])
    if facts["centre_lonlat"] is not None:
        lon, lat = facts["centre_lonlat"]
        text += (
            f"; centre {abs(lat):.5f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.5f}° {'E' if lon >= 0 else 'W'}"
        )
    return text


def _values(facts: dict[str, Any]) -> str:
    text = str(facts["dtype"])
    if facts["value_range"] is not None:
        low, high = facts["value_range"]
        text += f", which can hold {_number(low)} to {_number(high)}"
    if facts["sampled_share"] < 1:
        text += f"; ranges and nodata are estimated from {percent(facts['sampled_share'])} of the raster"
    return text


def _no_data(facts: dict[str, Any]) -> str:
    share = facts["no_data_share"]
    by = " and ".join(facts["no_data_by"])
    if facts["nodata"] is not None:
        by = by.replace("nodata value", f"nodata value {_number(facts['nodata'])}")
    guess = "" if facts["sampled_share"] == 1 else "about "
    amount = "none" if share == 0 else guess + percent(share)
    if share == 0 and guess:
        amount = "none seen"
    return f"{amount}; told by {by}" if by else amount


def _layout(facts: dict[str, Any]) -> str:
    wide, high = facts["block_px"]
    if wide >= facts["width_px"] and high >= facts["height_px"]:
        blocks = "one block"
    elif facts["is_tiled"]:
        blocks = f"tiles of {wide} x {high} px"
    else:
        blocks = f"strips of {high} row{'s' * (high > 1)}"
    kind = "cloud-optimised GeoTIFF" if facts["is_cog"] else facts["format"]
    packed = facts["compression"] or "not compressed"
    factors = facts["overviews"]
    overviews = f"overviews {', '.join(map(str, factors))}" if factors else "no overviews"
    return f"{kind}, {blocks}, {packed}, {overviews}"


def _largest(facts: dict[str, Any], answer: dict[str, Any]) -> str:
    gsd = answer["gsd_m"] or (facts["gsd_m"] and (facts["gsd_m"][0] * facts["gsd_m"][1]) ** 0.5)
    return f"{answer['largest_px']:.4g} px" if not gsd else f"{_length(answer['largest_px'] * gsd)} wide"


def _layer(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    kinds = ", ".join(f"{count} {name}" for name, count in facts["geometry_types"].items())
    without = f", {facts['without_geometry']} without geometry" if facts["without_geometry"] else ""
    yield "features", f"{facts['features']}" + (f" ({kinds}{without})" if kinds or without else "")
    if facts["classes"]:
        listed = [f"{name or '(none)'} {count}" for name, count in facts["classes"].items()]
        more = f" and {len(listed) - _MOST_CLASSES} more" if len(listed) > _MOST_CLASSES else ""
        column = "" if facts["class_column"] == "label" else f" (of column {facts['class_column']})"
        yield "classes", ", ".join(listed[:_MOST_CLASSES]) + more + column
    yield "place", facts["crs"] or "no CRS: coordinates are pixels or of an unknown frame"
    if facts["extent"]:
        x0, y0, x1, y1 = facts["extent"]
        yield "extent", f"x {x0:.8g} to {x1:.8g}, y {y0:.8g} to {y1:.8g}"
    if facts["extent_lonlat"] and facts["extent_lonlat"] != facts["extent"]:
        west, south, east, north = facts["extent_lonlat"]
        yield "", f"longitude {west:.5f} to {east:.5f}, latitude {south:.5f} to {north:.5f}"
    yield "columns", ", ".join(facts["columns"]) or "none"
    for name, value in facts["metadata"].items():
        text = str(value)
        yield name[:11], text if len(text) <= 120 else text[:119] + "…"


def _model(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    card = facts["card"]
    unit = card["unit"]
    yield (
        "model",
        f"{card['name']}, {_a(card['detector'])} of {facts['parameters'] / 1e6:.2f} million parameters",
    )
    if card["description"]:
        yield "", card["description"]
    yield "finds", ", ".join(card["classes"]) + f", up to {card['largest']:.4g} {unit} wide"
    if card["diameter_range"]:
        low, high = card["diameter_range"]
        yield "", f"learned from {low:.3g} to {high:.3g} {unit}"
    yield "needs", f"bands {', '.join(card['bands'])}"
    if card["gsd"] is None:
        yield "", "rasters as they are: no size on the ground"
    elif unit == "px":
        yield "", f"rasters of any size on the ground, read with pixels of {card['gsd']:.4g} of their own"
    else:
        text = f"{card['gsd']:.4g} {unit} per pixel"
        if card["gsd_range"]:
            low, high = card["gsd_range"]
            text += f"; meant for rasters of {low:.3g} to {high:.3g} {unit}"
        yield "", text
    yield "values", _learned(card)
    if card["reach_px"] is not None:
        text = f"{card['reach_px']} px around a place"
        if card["reach_px"] == "whole image":
            text = "the whole tile around a place, so answers depend a little on how a raster is cut"
        yield "sees", text
    # Those of another way to read the answer have its name in front.
    asked = sorted(card["thresholds"].items(), key=lambda each: ("_" in each[0], each[0].endswith("count")))
    for number, (purpose, scores) in enumerate(asked):
        cuts = ", ".join(f"{name} {score:.3g}" for name, score in zip(card["classes"], scores, strict=False))
        yield "" if number else "cut at", f"a score of {cuts} ({_purpose(purpose, card['detector'])})"
    for number, metric in enumerate(card["metrics"]):
        yield "" if number else "measured", _metric(metric)
    if not card["metrics"]:
        yield "measured", "nothing on the card"
    if card["agreement"]:
        yield "tilings", _agreement(card["agreement"])
    for number, source in enumerate(card["trained_on"]):
        yield "" if number else "trained on", _source(source)
        if source.get("places"):
            yield "", _places(source["places"])
    for name, value in (("licence", card["licence"]), ("made with", card["command"])):
        if value:
            yield name, value
    if card["versions"]:
        yield "", _flat(card["versions"])
    if facts["runtime"] is not None:
        yield "runs in", facts["runtime"]
    yield "hash", f"{facts['hash']}, {facts['megabytes']:.2f} MB"


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _purpose(name: str, detector: str) -> str:
    way, _, own = name.rpartition("_")
    meaning, how = _PURPOSES.get(own, (own, ""))
    if way:
        how = f"--set {_WAYS.get(detector, 'head')}={way} {how}".rstrip()
    return f"{meaning}, {how or 'the default'}"


_WAYS = {"sliding_window": "boxes"}  # option that chooses between ways to read a network's answer
_PURPOSES = {"f1": ("fewest errors", ""), "count": ("unbiased count", "--set threshold=count")}
_FIGURES = {"f1": "F1", "precision": "precision", "recall": "recall", "ap": "AP"}


def _metric(metric: Mapping[str, Any]) -> str:
    """A measurement: on what, with which n, by which criterion, then the figures."""
    rest = dict(metric)
    where = f"{rest.pop('split', '')}"
    facts = [str(rest.pop("chosen", ""))]
    n, rasters = rest.pop("n", None), rest.pop("rasters", None)
    facts.append("" if n is None else f"n = {_count(n)}")
    facts.append("" if rasters is None else f"{_count(rasters)} raster{'s' * (rasters != 1)}")
    facts.append(str(rest.pop("criterion", "")))
    note = str(rest.pop("note", "") or "")
    known = {_FIGURES[name]: rest.pop(name) for name in _FIGURES if name in rest}
    figures = [f"{name} {value:.3f}" for name, value in known.items() if isinstance(value, int | float)]
    figures += _counting(rest)
    figures += [_flat({name: value}) for name, value in rest.items() if value not in (None, "")]
    text = f"{where} ({'; '.join(filter(None, facts))}): {', '.join(figures) or 'no figure'}"
    return f"{text}; {note}" if note else text


def _counting(metric: dict[str, Any]) -> list[str]:
    """How far counts are off, taken out of a measurement."""
    off, low, high, places = (
        metric.pop(name, None) for name in ("count_off", "count_low", "count_high", "places")
    )
    if off is None:
        return []
    within = "" if None in (low, high) else f" (95 %: {low:+.1%} to {high:+.1%}, n = {places} places)"
    return [f"unbiased count off by {off:+.1%}{within}"]


def _learned(card: dict[str, Any]) -> str:
    """Which pixel values the model has learned."""
    learned = card["learned"]
    if learned is None:
        return "the card doesn't say which it has learned"
    unit = "of no known unit"
    if learned["low"] is not None:
        from ecodetect.bundle.values import ValueUnit

        unit = str(ValueUnit(learned["low"], learned["high"]))
    text = f"learned from {', '.join(learned['dtypes'])}, {unit}"
    if card["scaling"]["mode"] == "survey":
        text += "; scaled by each raster's own percentiles"
    middle = [f"{name} {each[1]:.3g} to {each[-2]:.3g}" for name, each in _by_band(card, "quantiles")]
    return f"{text}; 90 % are {', '.join(middle)}" if middle else text


def _by_band(card: dict[str, Any], table: str) -> list[tuple[str, tuple[float, ...]]]:
    """Learned values, band by band."""
    return [(name, card["learned"][table][name]) for name in card["bands"] if card["learned"][table]]


def _agreement(agreement: Mapping[str, Any]) -> str:
    """How much an answer depends on how a raster is cut into tiles."""
    rest = dict(agreement)
    shift, score = rest.pop("shift_px", None), rest.pop("score", None)
    alone, n = rest.pop("alone", None), rest.pop("n", None)
    parts = [] if shift is None else [f"agree within {shift:.2g} px"]
    parts += [] if score is None else [f"scores within {score:.2g}"]
    parts += [] if alone is None else [f"{100 * alone:.2g} % found in one only"]
    parts += [] if n is None else [f"n = {_count(n)}"]
    return ", ".join([*parts, *([_flat(rest)] if rest else [])])


def _source(source: Mapping[str, Any]) -> str:
    """What a model was trained on: names, individuals, rasters."""
    rest = {name: value for name, value in source.items() if name != "places"}
    objects, rasters = rest.pop("objects", None), rest.pop("rasters", None)
    classes = rest.pop("per_class", None)
    parts = [str(rest.pop("name", "") or "rasters without a name")]
    parts += [] if objects is None else [f"{_count(objects)} individual{'s' * (objects != 1)}"]
    parts += [] if rasters is None else [f"{_count(rasters)} raster{'s' * (rasters != 1)}"]
    if isinstance(classes, Mapping) and len(classes) > 1:
        parts.append(", ".join(f"{name} {_count(value)}" for name, value in classes.items()))
    return "; ".join([*parts, *([_flat(rest)] if rest else [])])


def _places(places: Any) -> str:
    """Where: cells of about 1 km by their south-western corners, or extents."""
    words = []
    for place in list(places)[:4]:
        lon, lat = float(place[0]), float(place[1])
        words.append(f"{abs(lat):g}° {'N' if lat >= 0 else 'S'} {abs(lon):g}° {'E' if lon >= 0 else 'W'}")
    more = f" and {len(places) - 4} more" if len(places) > 4 else ""
    size = "of about 1 km" if all(len(place) == 2 for place in places) else "as extents"
    return f"{len(places)} place{'s' * (len(places) != 1)} {size}: {', '.join(words)}{more}"


def _count(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def _flat(facts: Mapping[str, Any]) -> str:
    """`name value, name value`; long lists by their length."""
    parts = []
    for name, value in facts.items():
        if isinstance(value, float):
            value = f"{value:.4g}"
        elif isinstance(value, list | tuple) and len(value) > 4:
            value = len(value)
        elif isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        elif isinstance(value, dict):
            value = f"({_flat(value)})"
        parts.append(f"{name} {value}")
    return ", ".join(parts)


def _length(metres: float) -> str:
    if metres >= 10_000:
        return f"{metres / 1000:.4g} km"
    if metres < 0.001:
        return f"{metres * 1e6:.4g} µm"
    return f"{metres:.4g} m" if metres >= 1 else f"{metres * 100:.4g} cm"


def _hectares(area: float) -> str:
    if area < 1e-8:  # a square centimetre: a micrograph
        return f"{area * 1e10:.4g} mm²"
    return f"{area / 100:.4g} km²" if area >= 10_000 else f"{area:.4g} ha"


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e7 else f"{value:.4g}"

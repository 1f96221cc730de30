"""Why a classifier says so: heat lies where the answer comes from, and what can't be explained is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import learned
import numpy as np
import pytest
from command_line import Run
from numpy.typing import NDArray
from PIL import Image
from training_sets import noise, write_raster

from ecodetect.bundle import file as bundle
from ecodetect.bundle.card import Card
from ecodetect.classification.explaining import explain
from ecodetect.detectors import window_networks
from ecodetect.errors import UserError
from ecodetect.raster.reading import open_raster

RGB = ("red", "green", "blue")
WAYS = {
    "valid": {"kind": "valid", "evaluation": "dense", "window": 64, "step": 8, "width": 4},
    "windows": {"kind": "mobilenet_v2", "evaluation": "windows", "window": 64, "step": 64},
    "dense": {"kind": "mobilenet_v2", "evaluation": "dense", "window": 64, "step": 16},
}


def card(way: str, *, patches: bool, **changes: Any) -> Card:
    options = {"network": WAYS[way], "patches": patches, "temperature": 1.0, "typical_px": 64.0}
    return learned.card("sliding_window", options=options, bands=RGB, classes=("dark", "bright"), **changes)


def of_brightness(path: Path, *, patches: bool = True) -> Path:
    """A classifier that says "bright" the surer, the more of its window is bright.

    Every layer passes one channel on: the mean of what it sees.
    """
    made = card("valid", patches=patches, name="light")
    torch = pytest.importorskip("torch")
    network = window_networks.network(made)
    with torch.no_grad():
        for name, values in network.named_parameters():
            values.zero_()
            if name.startswith("classifier.body") and values.ndim == 4:
                values[0] = 1 / values[0].numel()
                if values.shape[1] > 3:  # after the first layer only channel 0 says anything
                    values[0] *= values.shape[1]
                    values[0, 1:] = 0
            elif name.startswith("classifier.body") and name.endswith("weight"):
                values.fill_(1.0)
        network.classifier.head.weight[-1, 0] = 12.0
        network.classifier.head.bias[-1] = -1.2
    weights = {name: values.numpy() for name, values in network.state_dict().items()}
    bundle.write(path, bundle.Bundle(made, weights))
    return path


def at_random(path: Path, way: str, *, patches: bool) -> Path:
    made = card(way, patches=patches, name=way, **({"reach_px": 40} if way == "dense" else {}))
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = window_networks.network(made)
    weights = {name: values.numpy() for name, values in network.state_dict().items()}
    bundle.write(path, bundle.Bundle(made, weights))
    return path


def with_a_light(path: Path, x: int, y: int, side: int = 64) -> Path:
    pixels: NDArray[np.uint8] = np.full((side, side, 3), 4, np.uint8)
    pixels[y : y + 12, x : x + 12] = 220
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_heat_lies_where_the_answer_comes_from(tmp_path: Path) -> None:
    model = of_brightness(tmp_path / "light.safetensors")
    picture = with_a_light(tmp_path / "light.png", 36, 14)
    done = explain(picture, model)
    assert done.scores[0][0] == "bright"
    assert done.activation is not None
    assert done.fall.shape == done.activation.shape == (64, 64)
    away = np.ones((64, 64), np.bool_)
    away[4:36, 26:58] = False  # the light and as far around as squares that cover it, and cells, reach
    for heat in (done.fall, done.activation):
        y, x = np.unravel_index(heat.argmax(), heat.shape)
        assert 12 <= y < 28
        assert 34 <= x < 50
        assert heat[14:26, 36:48].mean() > 5 * max(0.0, float(heat[away].mean()))
    assert done.activation.max() == 1


@pytest.mark.parametrize(
    ("way", "patches"),
    [
        *((way, True) for way in WAYS),
        ("valid", False),
        *(pytest.param(way, False, marks=pytest.mark.slow) for way in ("windows", "dense")),
    ],
)
def test_all_classifiers_can_be_explained(ecodetect: Run, tmp_path: Path, way: str, patches: bool) -> None:
    model = at_random(tmp_path / "m.safetensors", way, patches=patches)
    for name in ("dark", "bright"):
        for number in range(2):
            with_a_light(tmp_path / "by_class" / name / f"{number}.png", 5 + 30 * number, 20)
    raster = write_raster(tmp_path / "ortho.tif", noise(3, 150, 150))
    out = tmp_path / "why.png"
    outcome = ecodetect(
        "explain", raster, "-m", model, "--at", "80,70", "-o", out, "--examples", tmp_path / "by_class"
    )
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("similarity") == 4
    assert min(Image.open(out).size) > 400
    done = explain(raster, model, at=(80, 70))
    assert sum(score for _, score in done.scores) == pytest.approx(1, abs=1e-4)
    assert len(done.scores) == (2 if patches else 3)
    assert done.activation is not None
    assert done.image.shape[:2] == done.fall.shape == done.activation.shape


def test_the_same_place_may_be_given_in_a_crs(tmp_path: Path) -> None:
    model = of_brightness(tmp_path / "light.safetensors", patches=False)
    raster = write_raster(tmp_path / "ortho.tif", noise(3, 200, 200))
    with open_raster(raster) as opened:
        ((lon, lat),) = opened.grid.to_lonlat([(90.5, 110.5)]).tolist()
    one = explain(raster, model, at=(90.5, 110.5))
    two = explain(raster, model, at=(lon, lat), crs="EPSG:4326")
    assert one.scores == two.scores  # also of the middle of a pixel, where the next window begins
    np.testing.assert_array_equal(one.image, two.image)


def test_what_is_most_alike_comes_first_and_a_picture_isnt_its_own_example(tmp_path: Path) -> None:
    model = at_random(tmp_path / "m.safetensors", "valid", patches=True)
    picture = with_a_light(tmp_path / "all" / "a" / "one.png", 20, 20)
    with_a_light(tmp_path / "all" / "a" / "twin.png", 20, 20)
    with_a_light(tmp_path / "all" / "b" / "far.png", 50, 50)
    Image.fromarray(noise(3, 64, 64).transpose(1, 2, 0)).save(tmp_path / "all" / "b" / "other.png")
    done = explain(picture, model, examples=tmp_path / "all")
    assert done.examples[0].path.name == "twin.png"
    assert done.examples[0].similarity == pytest.approx(1)
    assert {each.path.name for each in done.examples} == {"twin.png", "far.png", "other.png"}
    assert done.examples[0].label == "a"


def test_the_same_explanation_gives_the_same_bytes(tmp_path: Path) -> None:
    model = of_brightness(tmp_path / "light.safetensors")
    picture = with_a_light(tmp_path / "light.png", 36, 14)
    for name in ("a.png", "b.png"):
        explain(picture, model).draw(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_what_cant_be_explained_is_said_in_one_sentence(ecodetect: Run, tmp_path: Path) -> None:
    model = of_brightness(tmp_path / "light.safetensors", patches=False)
    heat = tmp_path / "heat.safetensors"
    bundle.write(heat, learned.bundle(learned.card("heatmap")))
    raster = write_raster(tmp_path / "ortho.tif", noise(3, 300, 300))
    plain = write_raster(tmp_path / "plain.tif", noise(3, 300, 300), gsd_m=None)
    two = write_raster(tmp_path / "two.tif", noise(2, 300, 300))
    (tmp_path / "empty").mkdir()
    out = tmp_path / "why.png"
    at = ("--at", "50,60")
    for arguments, words in [
        ((raster, "-m", heat, *at), "name one of the detector sliding_window (--model)."),
        ((raster, "-m", model, "--at", "-5,60"), "-5,60 lies outside ortho.tif"),
        ((raster, "-m", model, "--at", "2.35,48.85", "--crs", "EPSG:4326"), "lies outside ortho.tif"),
        ((raster, "-m", model, "--at", "fifty,60"), "--at takes two numbers"),
        ((raster, "-m", model, *at, "--crs", "nonsense"), "nonsense is not a CRS"),
        ((raster, "-m", model, "--crs", "EPSG:4326"), "there is no --at"),
        ((plain, "-m", model, *at, "--crs", "EPSG:4326"), "plain.tif has no CRS"),
        ((raster, "-m", model), "name the place to explain (X,Y) (--at)."),
        ((two, "-m", model, *at), "needs bands red, green, blue"),
        ((raster, "-m", model, *at, "--examples", tmp_path / "empty"), "holds no raster"),
        ((raster, "-m", model, *at, "--examples", raster), "taken from a folder of pictures"),
    ]:
        outcome = ecodetect("explain", *arguments, "-o", out)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome
        assert words in outcome.err
    assert not out.exists()
    assert "must end in .png" in ecodetect("explain", raster, "-m", model, *at, "-o", "why.gif").err
    with pytest.raises(UserError, match="lies outside"):
        explain(raster, model, at=(301, 4))

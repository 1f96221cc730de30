"""Export: the same answers in ONNX, the card, the same detections without torch; one sentence else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import learned
import numpy as np
import pytest
from command_line import Run
from scipy.spatial import KDTree

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from ecodetect import exporting, scan  # noqa: E402
from ecodetect.bundle import file as bundle  # noqa: E402
from ecodetect.bundle.card import Scaling  # noqa: E402
from ecodetect.bundle.file import Bundle  # noqa: E402
from ecodetect.detections import Detections  # noqa: E402
from ecodetect.detectors import table as detectors  # noqa: E402
from ecodetect.detectors import yolo  # noqa: E402
from ecodetect.detectors.protocol import Scene  # noqa: E402
from ecodetect.errors import BundleError, UserError  # noqa: E402
from ecodetect.models import choosing as models  # noqa: E402
from ecodetect.runtime import onnx_file  # noqa: E402

YOLO = {"network": {"kind": "nano", "strides": [4, 8], "size": "nano"}, "typical_px": 10.0}


def points() -> Bundle:
    return learned.bundle(
        learned.card(
            unit="m", gsd=0.4, gsd_range=(0.1, 0.6), largest=8.0, thresholds={"f1": (0.2,), "count": (0.15,)},
            scaling=Scaling(offset=(10.0,) * 4, span=(255.0,) * 4),
        )
    )  # fmt: skip


def boxes() -> Bundle:
    import torch

    card = learned.card(detector="yolo", name="yolo", options=YOLO, thresholds={"f1": (0.02,)})
    torch.manual_seed(0)
    made = yolo.network(card)
    with torch.no_grad():
        for name, values in made.named_parameters():
            if values.ndim == 4:  # so that what goes in reaches the end
                torch.nn.init.kaiming_normal_(values, nonlinearity="relu")
            elif "kinds" in name and values.shape == (1,):
                values.fill_(0.0)  # unsure of every place
    return Bundle(card, {name: values.numpy() for name, values in made.state_dict().items()})


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle of points, and the same in ONNX."""
    folder = tmp_path_factory.mktemp("exported")
    bundle.write(folder / "shrubby.safetensors", points())
    exporting.export(folder / "shrubby.safetensors", folder / "shrubby.onnx")
    return folder / "shrubby.safetensors", folder / "shrubby.onnx"


def assert_same(one: Detections, two: Detections) -> None:
    """Positions to 0.01 px, scores to 1e-4."""
    assert len(one) == len(two) > 10
    off, nearest = KDTree(two.centres()).query(one.centres())
    assert off.max() < 0.01
    assert np.abs(one.score - two.score[nearest]).max() < 1e-4
    assert (one.label == two.label[nearest]).all()


def test_the_same_points_are_found(pair: tuple[Path, Path], corners: Path) -> None:
    one, two = (scan(corners / "dryland.tif", model=str(path)) for path in pair)
    assert_same(one, two)


@pytest.mark.parametrize("options", [{}, pytest.param({"head": "many"}, marks=pytest.mark.slow)])
def test_the_same_boxes_are_found(tmp_path: Path, corners: Path, options: dict[str, str]) -> None:
    bundle.write(tmp_path / "a.safetensors", boxes())
    done = exporting.export(tmp_path / "a.safetensors", tmp_path / "a.onnx", options=options)
    assert done.outputs == (("many_4", "many_8") if options else ("one_4", "one_8"))
    chips = learned_chips(corners)
    scene = Scene(chips[0].bands, None, "uint8", (0, 255))
    one, two = (models.build(tmp_path / name, scene, options) for name in ("a.safetensors", "a.onnx"))
    for first, second in zip(one.detect(chips), two.detect(chips), strict=True):
        assert_same(first, second)
    other = {} if options else {"head": "many"}
    with pytest.raises(BundleError, match="export it with the same options"):
        models.build(tmp_path / "a.onnx", scene, other)


def learned_chips(corners: Path) -> list:
    from ecodetect.grid import Window
    from ecodetect.raster.reading import open_raster

    with open_raster(corners / "dryland.tif") as raster:
        return [raster.read(Window(x, 32, 96, 64), raster.bands) for x in (0, 96)]


def test_scanning_needs_no_torch(pair: tuple[Path, Path], corners: Path) -> None:
    code = (
        "import sys, ecodetect\n"
        f"found = ecodetect.scan({str(corners / 'dryland.tif')!r}, model={str(pair[1])!r})\n"
        "print(len(found), 'torch' in sys.modules, 'onnx' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    number, *loaded = done.stdout.split()
    assert int(number) > 10
    assert loaded == ["False", "False"]


def test_the_card_goes_along(pair: tuple[Path, Path], ecodetect: Run) -> None:
    card, here = models.card(str(pair[1])), models.card(str(pair[0]))
    assert card.reach_px is not None  # found when it was exported
    assert {**json.loads(card.to_json()), "reach_px": None} == json.loads(here.to_json())
    done = ecodetect("info", pair[1])
    assert (done.code, "0.4 m per pixel" in done.out) == (0, True), done.err
    assert json.loads(ecodetect("info", pair[1], "--json").out)["parameters"] > 100


def test_deepness_is_told_what_is_true(pair: tuple[Path, Path], tmp_path: Path) -> None:
    def told(path: Path) -> dict[str, object]:
        facts = {each.key: each.value for each in onnx.load(path).metadata_props}
        return {key: json.loads(value) for key, value in facts.items() if key != "ecodetect.stride"}

    facts = told(pair[1])
    assert "model_type" not in facts  # images of any side are nothing for Deepness
    assert facts["class_names"] == {"0": "object"}
    assert facts["resolution"] == 40
    assert facts["standardization_mean"] == [10 / 255] * 4
    assert facts["standardization_std"] == [1.0] * 4
    assert "tile_size" not in facts
    exporting.export(pair[0], tmp_path / "fixed.onnx", tile_px=64)
    facts = told(tmp_path / "fixed.onnx")
    assert (facts["tile_size"], facts["model_type"], facts["reg_output_scaling"]) == (64, "Regressor", 255)
    (image,) = onnx.load(tmp_path / "fixed.onnx").graph.input
    assert [dim.dim_value for dim in image.type.tensor_type.shape.dim] == [1, 4, 64, 64]
    with pytest.raises(BundleError, match="for tiles of 64 px only"):
        models.build(
            tmp_path / "fixed.onnx", Scene(("red", "green", "blue", "nir"), (0.4, 0.4), "uint8", None)
        )


def test_deepness_draws_the_map_of_the_network(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Its steps, written out: values by 255, standardised, answers times the scaling, kept in 8 bits."""
    onnxruntime = pytest.importorskip("onnxruntime")
    exporting.export(pair[0], tmp_path / "fixed.onnx", tile_px=64)
    session = onnxruntime.InferenceSession(tmp_path / "fixed.onnx", providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    tile = np.random.default_rng(0).integers(0, 256, (64, 64, 4), dtype=np.uint8)
    mean, deviation = (json.loads(told[f"standardization_{name}"]) for name in ("mean", "std"))
    image = ((tile / 255 - mean) / deviation).astype(np.float32).transpose(2, 0, 1)[None]
    (maps,) = session.run(None, {session.get_inputs()[0].name: image})
    drawn = (maps * json.loads(told["reg_output_scaling"])).astype(np.uint8)
    assert drawn.shape[1:] == (len(json.loads(told["class_names"])), 64, 64)
    assert 0 <= maps.min() < maps.max() <= 1
    assert drawn.max() > 20  # not black
    assert np.abs(drawn.astype(int) - maps * 255).max() <= 1  # and nothing wraps around
    whole = onnxruntime.InferenceSession(pair[1], providers=["CPUExecutionProvider"])
    (wanted,) = whole.run(None, {whole.get_inputs()[0].name: image})
    assert np.abs(maps - np.clip(wanted[:, :1], 0, 1)).max() < 1e-5


def test_the_command(pair: tuple[Path, Path], ecodetect: Run, tmp_path: Path, corners: Path) -> None:
    out = tmp_path / "a.onnx"
    done = ecodetect("export", pair[0], "-o", out)
    assert (done.code, "differ" in done.out) == (0, True), done.err
    assert out.read_bytes() == pair[1].read_bytes()  # the same bytes each time
    assert "--overwrite" in ecodetect("export", pair[0], "-o", out).err
    assert ecodetect("export", pair[0], "-o", out, "--overwrite").code == 0
    layer = next(corners.glob("*.geojson"))
    assert "written to" in ecodetect("export", layer, "-o", tmp_path / "layer.gpkg").out


@pytest.mark.parametrize(
    ("source", "flags", "says"),
    [
        ("shrubby.onnx", [], "in ONNX already"),
        ("heatmap", [], "kind of detector"),
        ("shrubby.safetensors", ["--tile", "30"], "multiple of 4"),
        ("shrubby.safetensors", ["--set", "suppression=0.5"], "no option"),
        ("nothing.safetensors", [], "There is no model"),
    ],
)
def test_what_can_not_be_exported(
    pair: tuple[Path, Path], ecodetect: Run, tmp_path: Path, source: str, flags: list[str], says: str
) -> None:
    name = pair[0].parent / source if "." in source else source
    done = ecodetect("export", name, "-o", tmp_path / "never.onnx", *flags)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert says in done.err
    assert list(tmp_path.iterdir()) == []


def test_other_answers_are_not_written(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "MOST_OFF", -1.0)
    with pytest.raises(UserError, match="answers differ"):
        exporting.export(pair[0], tmp_path / "never.onnx")
    assert list(tmp_path.iterdir()) == []


def test_packages_that_are_missing_are_named(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r'needs onnx, .*: pip install "ecodetect\[train\]"'):
        exporting.export(pair[0], tmp_path / "never.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs onnxruntime, .*: pip install ecodetect\."):
        models.build(pair[1], Scene(("red", "green", "blue", "nir"), (0.4, 0.4), "uint8", None))


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def hidden(model: onnx.ModelProto) -> None:
    """An external tensor in an attribute of a node of a graph of a node."""
    tensor = onnx.TensorProto(data_type=1, dims=[1], name="x")
    tensor.external_data.add(key="location", value="../x")
    inner = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["y"], value=tensor)], "g", [], [])
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["z"], then_branch=inner))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (external, "keeps weights in other files"),
        (hidden, "a attribute has a field 6"),
        (lambda model: model.ClearField("metadata_props"), "no card of ecodetect"),
        (lambda model: model.graph.ClearField("node"), "nothing makes its output"),
        (lambda model: model.graph.ClearField("initializer"), "is used before it is made"),
    ],
)
def test_a_file_that_is_changed(
    pair: tuple[Path, Path], ecodetect: Run, corners: Path, tmp_path: Path, change, says: str
) -> None:
    model = onnx.load(pair[1])
    change(model)
    path = tmp_path / "changed.onnx"
    path.write_bytes(model.SerializeToString())
    done = ecodetect("scan", corners / "dryland.tif", "-m", path, "-o", tmp_path / "never.geojson")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert says in done.err


@pytest.mark.parametrize("kind", ["short", "text", "empty", "bundle", "noise"])
def test_what_is_no_onnx_is_one_sentence(pair: tuple[Path, Path], tmp_path: Path, kind: str) -> None:
    content = {
        "short": pair[1].read_bytes()[:-300], "text": b"weights", "empty": b"",
        "bundle": pair[0].read_bytes(), "noise": np.random.default_rng(0).bytes(4000),
    }[kind]  # fmt: skip
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="not an ONNX file"):
        onnx_file.read(path)


def test_a_network_of_other_maps_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    model = onnx.load(pair[1])
    for entry in model.metadata_props:
        if entry.key == "ecodetect":
            entry.value = entry.value.replace('"classes":["object"]', '"classes":["one","two"]')
            entry.value = entry.value.replace('"count":[0.15]', '"count":[0.1,0.1]').replace(
                "[0.2]", "[0.2,0.2]"
            )
    path = tmp_path / "other.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="isn't the one of its card"):
        models.build(path, Scene(("red", "green", "blue", "nir"), (0.4, 0.4), "uint8", None))


def test_it_can_not_be_trained_on(
    pair: tuple[Path, Path], ecodetect: Run, tmp_path: Path, corners: Path
) -> None:
    out = tmp_path / "never.safetensors"
    done = ecodetect(
        "train", corners / "dryland.tif", next(corners.glob("*.geojson")), "-m", pair[1], "-o", out
    )
    assert (done.code, "was exported" in done.err) == (2, True), done.err


def test_a_device_that_is_not_there(pair: tuple[Path, Path]) -> None:
    found = models.opened(str(pair[1]))
    scene = Scene(("red", "green", "blue", "nir"), (0.4, 0.4), "uint8", None)
    with pytest.raises(UserError, match="device mps isn't available for ONNX"):
        detectors.build("heatmap", scene, {}, bundle=found, device="mps")

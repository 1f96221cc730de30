"""A species for each object or picture: the answer of the classifier to just what it was trained to see."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import learned
import numpy as np
import pytest
import shapely
from command_line import Run
from ecodetect_cli.main import main
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from training_sets import noise, write_boxes, write_points, write_raster

from ecodetect.annotations.class_folders import ClassPictures, gather_classes, pictures
from ecodetect.annotations.contract import Contract
from ecodetect.annotations.dataset import Dataset
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.bundle import file as bundle
from ecodetect.bundle.card import Card
from ecodetect.classification.accuracy import calibration_error, judge
from ecodetect.classification.answering import Answers, ClassifierEnsemble, Member, Sight, open_classifier
from ecodetect.classification.folders import answer_pictures, images_of
from ecodetect.classification.layers import classify
from ecodetect.converting import stream_of
from ecodetect.detectors import window_networks
from ecodetect.errors import UserError
from ecodetect.formats import files as formats
from ecodetect.grid import WGS84, Window
from ecodetect.layer import Layer
from ecodetect.raster.reading import open_raster

RGB = ("red", "green", "blue")
SPECIES = ("oak", "ash", "elm")
NETWORKS = {
    "valid": {"kind": "valid", "evaluation": "dense", "window": 64, "step": 8, "width": 4},
    "windows": {"kind": "mobilenet_v2", "evaluation": "windows", "window": 32, "step": 8},
    "dense": {"kind": "mobilenet_v2", "evaluation": "dense", "window": 64, "step": 16},
}


def model(path: Path, way: str = "valid", seed: int = 0, *, patches: bool = False, **changes: Any) -> Path:
    """A classifier with random weights, as a file."""
    network = dict(NETWORKS[way])
    if patches and way == "windows":
        network["step"] = network["window"]
    facts: dict[str, Any] = {"name": path.stem, "bands": RGB, "classes": SPECIES, **changes}
    options = {"network": network, "patches": patches, "temperature": 1.7, "typical_px": 64.0}
    if way == "windows" and patches:
        options["typical_px"] = 32.0
    card = learned.card("sliding_window", options=options, **facts)
    made = learned.bundle(card, seed) if network["kind"] == "valid" else _of_backbone(card, seed)
    bundle.write(path, made)
    return path


def _of_backbone(card: Card, seed: int) -> bundle.Bundle:
    torch = pytest.importorskip("torch")
    torch.manual_seed(seed)
    network = window_networks.network(card)
    with torch.no_grad():
        for name, values in network.named_parameters():
            if name.startswith(("head.weight", "classifier.head.weight")):
                values.mul_(40.0)
    return bundle.Bundle(card, {name: values.numpy() for name, values in network.state_dict().items()})


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Softmax of logits (K,) at the temperature of `model`."""
    x = np.exp(logits.astype(np.float64) / 1.7 - (logits / 1.7).max())
    return np.asarray(x / x.sum())


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    blurred = cv2.GaussianBlur(noise(3, 400, 300).transpose(1, 2, 0), (0, 0), 3).transpose(2, 0, 1)
    stretched = np.clip((blurred.astype(np.float64) - 128) * 5 + 128, 1, 254).astype(np.uint8)
    return write_raster(tmp_path_factory.mktemp("raster") / "ortho.tif", stretched)


@pytest.fixture(scope="module")
def species(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("model") / "species.safetensors")


def answered(raster: Path, file: Path, xy: Any, **how: Any) -> Answers:
    with open_raster(raster) as opened:
        return open_classifier([file], **how).seeing(opened).at(np.asarray(xy, np.float64))


# -- what is seen --------------------------------------------------------------------------------------------


def test_the_exact_network_says_of_an_object_what_its_map_says_there(raster: Path, species: Path) -> None:
    whole = bundle.read(species)
    dense = window_networks.open_classifier(whole, "cpu", None)
    with open_raster(raster) as opened:
        pixels = opened.read(opened.grid.window, RGB).pixels[:, :400, :296]
    (scores,) = dense.run((pixels / 120).astype(np.float32)[None])
    cells = [(6, 9), (20, 25), (12, 30)]  # column and row, away from the edge
    found = answered(raster, species, [((x + 0.5) * 8, (y + 0.5) * 8) for x, y in cells])
    assert found.names == (*SPECIES, "background")
    for row, (x, y) in enumerate(cells):
        wanted = probabilities(scores[0, :, y, x])
        np.testing.assert_allclose(found.score[row], [*wanted[1:], wanted[0]], atol=1e-4)
    assert found.score.std(axis=0).max() > 0.01  # places differ


def test_windows_are_cut_and_given_to_the_classifier(raster: Path, tmp_path: Path) -> None:
    file = model(tmp_path / "m.safetensors", "windows", patches=True)
    torch = pytest.importorskip("torch")
    network = window_networks.network(bundle.read_card(file))
    network.load_state_dict({k: torch.from_numpy(v) for k, v in bundle.read_weights(file).items()})
    network.eval()
    with open_raster(raster) as opened:
        pixels = opened.read(opened.grid.window, RGB).pixels
    window = (pixels[:, 100 - 16 : 100 + 16, 60 - 16 : 60 + 16] / 120).astype(np.float32)
    with torch.no_grad():
        logits = network.classifier(torch.from_numpy(window[None]))[0].numpy()
    found = answered(raster, file, [(60, 100)])
    assert found.names == SPECIES
    np.testing.assert_allclose(found.score[0], probabilities(logits), atol=1e-4)


def test_a_network_that_learned_on_chips_is_given_a_chip_and_the_middle_is_read(
    raster: Path, tmp_path: Path
) -> None:
    file = model(tmp_path / "m.safetensors", "dense", reach_px=60)
    whole = bundle.read(file)
    _, side = window_networks.open_single(whole, "cpu", None)
    assert side == 9 * 16  # 60 px around the cell of 16 in the middle, in whole cells
    found = answered(raster, file, [(150, 200)])
    with open_raster(raster) as opened:
        pixels = opened.read(opened.grid.window, RGB).pixels
    chip = (pixels[:, 200 - 72 : 200 + 72, 150 - 72 : 150 + 72] / 120).astype(np.float32)
    (scores,) = window_networks.open_classifier(whole, "cpu", None).run(chip[None])
    wanted = probabilities(scores[0, :, 4, 4])
    np.testing.assert_allclose(found.score[0], [*wanted[1:], wanted[0]], atol=1e-4)


def test_an_answer_depends_on_its_object_alone(raster: Path, species: Path) -> None:
    xy = np.random.default_rng(1).uniform((-20, -20), (320, 420), (60, 2))
    together = answered(raster, species, xy)
    order = np.random.default_rng(2).permutation(len(xy))
    np.testing.assert_allclose(answered(raster, species, xy[order]).score, together.score[order], atol=1e-5)
    np.testing.assert_allclose(answered(raster, species, xy[7:8]).score, together.score[7:8], atol=1e-5)


def test_beyond_the_edge_is_the_fill_value(raster: Path, species: Path, tmp_path: Path) -> None:
    with open_raster(raster) as opened:
        sight = Sight.of(open_classifier([species]).members[0], opened)
        ((_, images, seen),) = sight.windows(opened, np.array([[0.0, 200.0]]))
        ((_, _, unseen),) = sight.windows(opened, np.array([[-40.0, 200.0]]))
    assert (images[0, :, :, :32] == 0).all()
    assert (images[0, :, :, 32:] > 0).all()
    assert (seen.all(), unseen.any()) == (True, False)


def test_at_another_gsd_the_raster_is_brought_to_that_of_the_card(raster: Path, tmp_path: Path) -> None:
    file = model(tmp_path / "m.safetensors", unit="m", gsd=1.0)
    with open_raster(raster) as opened:
        sight = Sight.of(open_classifier([file]).members[0], opened)
        ((_, images, _),) = sight.windows(opened, np.array([[150.0, 200.0]]))
        wanted = opened.read(opened.grid.resampled(1.0).window, RGB, opened.grid.resampled(1.0)).pixels
    np.testing.assert_allclose(images[0], wanted[:, 68:132, 43:107] / 120, atol=1e-6)


def test_as_much_ground_is_seen_as_the_pictures_showed_that_it_learned_from(
    raster: Path, tmp_path: Path
) -> None:
    file = model(tmp_path / "m.safetensors", patches=True)
    card = bundle.read_card(file)
    wide = Card(**{**{f: getattr(card, f) for f in card.__slots__},
                          "options": {**card.options, "typical_px": 128.0}})  # fmt: skip
    bundle.write(file, bundle.Bundle(wide, bundle.read_weights(file)))
    with open_raster(raster) as opened:
        sight = Sight.of(open_classifier([file]).members[0], opened)
        assert sight.spec.grid == opened.grid.reduced(2.0)


@given(
    places=st.lists(st.tuples(*[st.floats(-200, 600)] * 2), min_size=1, max_size=12),
    cell=st.integers(20, 300),
)
@settings(max_examples=10)
def test_each_window_is_cut_from_the_ground_about_its_place(
    raster: Path, species: Path, places: list[tuple[float, float]], cell: int
) -> None:
    xy = np.array(places)
    with open_raster(raster) as opened, pytest.MonkeyPatch.context() as patch:
        patch.setattr("ecodetect.classification.answering.CELL_PX", cell)
        sight = Sight.of(open_classifier([species]).members[0], opened)
        seen = np.zeros(len(xy), np.int64)
        for rows, images, there in sight.windows(opened, xy):
            for row, image, is_there in zip(rows, images, there, strict=True):
                seen[row] += 1
                x, y = np.floor(xy[row] - 32 + 0.5 + 1e-6).astype(int).tolist()
                chip = opened.read(Window(x, y, 64, 64), RGB)
                valid = np.ones((64, 64), np.bool_) if chip.valid is None else chip.valid
                np.testing.assert_allclose(image, np.where(valid, chip.pixels / 120, 0), atol=1e-6)
                assert is_there == valid.any()
        assert (seen == 1).all()


def test_ground_is_read_in_pieces_however_many_objects_there_are(
    raster: Path, species: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecodetect.classification import answering as classifiers
    from ecodetect.raster.reading import Raster

    monkeypatch.setattr(classifiers, "CELL_PX", 100)
    read = Raster.read
    sizes: list[int] = []

    def watched(self: Raster, window: Any, *rest: Any) -> Any:
        sizes.append(window.area)
        return read(self, window, *rest)

    monkeypatch.setattr(Raster, "read", watched)
    xy = np.random.default_rng(0).uniform(0, 300, (500, 2))
    answered(raster, species, xy)
    assert max(sizes) <= (100 + 64) ** 2
    assert len(sizes) < 40


def test_seen_from_all_sides_a_turned_raster_gives_the_same_answers(
    raster: Path, species: Path, tmp_path: Path
) -> None:
    with open_raster(raster) as opened:
        pixels = opened.read(opened.grid.window, RGB).pixels
    turned = write_raster(tmp_path / "turned.tif", np.ascontiguousarray(np.rot90(pixels, axes=(1, 2))))
    xy, there = [(100.0, 130.0)], [(130.0, 200.0)]
    for views in ("flips", "flips+crops"):
        one = answered(raster, species, xy, views=views)
        two = answered(turned, species, there, views=views)
        np.testing.assert_allclose(one.score, two.score, atol=1e-5)
    alone = answered(raster, species, xy), answered(turned, species, there)
    assert np.abs(alone[0].score - alone[1].score).max() > 1e-4


# -- several that answer together ----------------------------------------------------------------------------


def committee(vote: Any) -> ClassifierEnsemble:
    card = learned.card("sliding_window", classes=("a", "b"), options={"patches": True})
    return ClassifierEnsemble(tuple(Member(bundle.Bundle(card, {}), None, 64) for _ in range(3)), vote)  # type: ignore[arg-type]


def test_members_answer_by_their_mean_or_by_vote() -> None:
    parts = [np.array([row], np.float32) for row in ([0.45, 0.55], [0.45, 0.55], [0.98, 0.02])]
    known = np.ones(1, np.bool_)
    assert committee("mean").together(parts, known).first().tolist() == ["a"]
    assert committee("majority").together(parts, known).first().tolist() == ["b"]
    assert committee("majority").together(parts, known).columns(2)["species_score"].tolist() == [0.3733]


def test_the_mean_decides_between_equal_votes() -> None:
    several = committee("majority")
    pair = ClassifierEnsemble(several.members[:2], "majority")
    parts = [np.array([row], np.float32) for row in ([0.1, 0.9], [0.6, 0.4])]
    assert pair.together(parts, np.ones(1, np.bool_)).first().tolist() == ["b"]


def test_members_may_list_their_classes_in_any_order(raster: Path, species: Path, tmp_path: Path) -> None:
    other = model(tmp_path / "other.safetensors", seed=3, classes=("elm", "oak", "ash"))
    with open_raster(raster) as opened:
        both = open_classifier([species, other]).seeing(opened).at(np.array([[100.0, 100.0]]))
    one, two = (answered(raster, file, [(100, 100)]) for file in (species, other))
    wanted = [(one.score[0, k] + two.score[0, two.names.index(name)]) / 2 for k, name in enumerate(one.names)]
    np.testing.assert_allclose(both.score[0], wanted, atol=1e-6)


# -- layers --------------------------------------------------------------------------------------------------


def test_a_layer_keeps_its_columns_and_gets_species(
    ecodetect: Run, raster: Path, species: Path, tmp_path: Path
) -> None:
    points = write_points(tmp_path / "trees.csv", [(50.25, 60.5), (200.5, 300.75)], height=[7.5, 9.25])
    out = tmp_path / "species.gpkg"
    outcome = ecodetect("classify", points, raster, "-m", species, "-o", out)
    assert outcome.code == 0, outcome.err
    found = formats.read(out)
    expected = answered(raster, species, [(50.25, 60.5), (200.5, 300.75)])
    assert found.columns["height"].tolist() == [7.5, 9.25]
    assert found.columns["species"].tolist() == expected.first().tolist()
    for place in range(3):
        suffix = f"_{place + 1}" if place else ""
        rows, number = np.arange(2), expected.ranked()[:, place]
        np.testing.assert_allclose(
            found.columns[f"species{suffix}_score"], expected.score[rows, number], atol=6e-5
        )
    assert found.metadata["classified"]["models"] == [{"name": "species", "hash": bundle.read(species).hash}]
    assert f"written to {out}" in outcome.out


def test_the_layer_may_be_in_another_crs_and_keeps_it(raster: Path, species: Path, tmp_path: Path) -> None:
    xy = np.array([(80.0, 90.0), (220.0, 310.0)])
    with open_raster(raster) as opened:
        lonlat = opened.grid.to_lonlat(xy)
    trees = Layer(np.asarray(shapely.points(lonlat), dtype=object), {"id": np.array([4, 5])}, crs=WGS84)
    formats.write(tmp_path / "trees.gpkg", stream_of(trees))
    classify(tmp_path / "trees.gpkg", raster, [species], tmp_path / "species.gpkg")
    found = formats.read(tmp_path / "species.gpkg")
    assert found.crs == WGS84
    np.testing.assert_allclose(shapely.get_coordinates(found.geometry), lonlat, atol=1e-9)
    assert found.columns["species"].tolist() == answered(raster, species, xy).first().tolist()


@pytest.mark.parametrize(
    "suffix",
    [".geojson", ".geojsonl", ".gpkg", ".parquet", ".fgb", ".shp", ".json", ".csv", ".tsv", ".xml", ".txt"],
)
def test_every_format_that_can_hold_it_carries_the_species(
    raster: Path, species: Path, tmp_path: Path, suffix: str
) -> None:
    boxes = write_boxes(tmp_path / "trees.csv", [(40, 50, 70, 80), (180, 200, 220, 230)], ["tree", "tree"])
    done = classify(boxes, raster, [species], tmp_path / f"species{suffix}")
    with open_raster(raster) as opened:
        found = formats.read(done.path, grid=opened.grid, image=str(raster))
    column = "label" if suffix in (".xml", ".txt") else "species"
    wanted = answered(raster, species, [(55, 65), (200, 215)]).first().tolist()
    assert found.columns[column].tolist() == wanted
    if column == "species":
        assert found.columns["label"].tolist() == ["tree", "tree"]
    else:
        assert any("species replace the labels" in str(note) for note in done.notes)


def test_where_the_raster_shows_nothing_there_is_no_species(
    raster: Path, species: Path, tmp_path: Path
) -> None:
    points = write_points(tmp_path / "trees.csv", [(50.5, 60.5), (-900.5, 60.5)])
    done = classify(points, raster, [species], tmp_path / "species.geojson")
    found = formats.read(done.path)
    assert (done.unknown, found.columns["species"][1]) == (1, "")
    assert np.isnan(found.columns["species_score"][1])
    assert any("no species for 1 of 2" in str(note) for note in done.notes)


def test_classifying_twice_gives_the_same_bytes(raster: Path, species: Path, tmp_path: Path) -> None:
    points = write_points(tmp_path / "trees.csv", [(50.5, 60.5), (90.5, 60.5)])
    for name in ("a", "b"):
        classify(points, raster, [species], tmp_path / f"{name}.geojson", views="flips")
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


# -- as a step of a scan -------------------------------------------------------------------------------------


def test_a_scan_may_give_each_detection_its_species(
    ecodetect: Run, corners: Path, species: Path, tmp_path: Path
) -> None:
    image = corners / "dryland.tif"
    plain, both, later = (tmp_path / f"{name}.gpkg" for name in ("plain", "both", "later"))
    scan = ("scan", image, "-m", "threshold", "--json")
    ecodetect(*scan, "-o", plain)
    outcome = ecodetect(*scan, "--classify", species, "-o", both)
    assert outcome.code == 0, outcome.err
    classify(plain, image, [species], later)
    one, two = formats.read(both), formats.read(later)
    assert len(one) > 5
    for column in ("id", "label", "species", "species_2", "species_3"):
        assert one.columns[column].tolist() == two.columns[column].tolist()
    np.testing.assert_allclose(one.columns["species_score"], two.columns["species_score"], atol=1e-4)
    counted = json.loads(outcome.out)[0]["species"]
    assert counted == {n: one.columns["species"].tolist().count(n) for n in counted}
    assert sum(counted.values()) == len(one)
    assert one.metadata["classified"]["models"][0]["name"] == "species"


def test_a_classified_scan_is_another_answer_than_a_plain_one(
    ecodetect: Run, corners: Path, species: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.geojson"
    scan = ("scan", corners / "dryland.tif", "-m", "threshold", "-o", out)
    ecodetect(*scan)
    assert "--overwrite" in ecodetect(*scan, "--classify", species).err
    assert ecodetect(*scan, "--classify", species, "--overwrite").code == 0
    assert "already done" in ecodetect(*scan, "--classify", species).out
    assert "--overwrite" in ecodetect(*scan).err


def test_a_scan_that_cant_be_classified_is_refused_before_it_begins(
    ecodetect: Run, corners: Path, species: Path, tmp_path: Path
) -> None:
    image, out = corners / "dryland.tif", tmp_path / "out.geojson"
    thermal = model(tmp_path / "thermal.safetensors", bands=("red", "green", "thermal"))
    for more, words in [
        (("--classify", thermal), "needs bands red, green, thermal"),
        (("--classify", "blobs"), "is a kind of detector"),
        (("--classify", species, "--max-memory", "2GB"), "classify the layer (--max-memory, --classify)."),
    ]:
        outcome = ecodetect("scan", image, "-m", "threshold", "-o", out, *more)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
        assert words in outcome.err
    assert "no place for a species" in ecodetect(
        "scan", image, "-m", "threshold", "-o", tmp_path / "out.xml", "--classify", species
    ).err  # fmt: skip
    assert not out.exists()


# -- pictures ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in folders by class, of several sizes."""
    root = tmp_path_factory.mktemp("pictures")
    for number, (name, side) in enumerate([(n, s) for n in SPECIES for s in (40, 64, 90)]):
        (root / name).mkdir(exist_ok=True)
        Image.fromarray(noise(3, side, side, number).transpose(1, 2, 0)).save(root / name / f"{side}.png")
    return root


@pytest.mark.parametrize("way", ["valid", "windows", "dense"])
def test_pictures_are_seen_as_in_training(folder: Path, tmp_path: Path, way: str) -> None:
    member = open_classifier([model(tmp_path / "m.safetensors", way, patches=True)]).members[0]
    sources = gather_classes(folder).sources
    taught = ClassPictures(Dataset(sources, Contract.of(member.card)), member.side)
    named = [(path, "") for paths in pictures(folder).values() for path in paths]
    images, _ = images_of(member, named, AnnotationOptions())
    np.testing.assert_array_equal(images, np.stack([sample.image for sample in taught]))
    assert member.probability(images).shape == (9, 3)


def test_a_folder_by_class_is_judged(ecodetect: Run, folder: Path, tmp_path: Path) -> None:
    file = model(tmp_path / "m.safetensors", patches=True)
    table, sheet = tmp_path / "answers.csv", tmp_path / "errors.png"
    outcome = ecodetect("classify", folder, "-m", file, "-o", table, "--sheet", sheet, "--top", 2)
    assert outcome.code == 0, outcome.err
    rows = list(csv.DictReader(table.open()))
    right = sum(row["truth"] == row["species"] for row in rows)
    assert list(rows[0]) == ["image", "truth", "species", "species_score", "species_2", "species_2_score"]
    assert {row["image"] for row in rows} == {f"{n}/{s}.png" for n in SPECIES for s in (40, 64, 90)}
    assert outcome.out.startswith(f"9 pictures: {right / 9:.3f} right")
    assert Image.open(sheet).width > 500
    facts = json.loads(ecodetect("classify", folder, "-m", file, "--json").out)
    assert (facts["n"], facts["accuracy"]) == (9, round(right / 9, 4))
    assert np.trace(facts["confusion"]["matrix"]) == right
    assert len(facts["pictures"]) == 9


def test_loose_pictures_get_answers_without_truth(ecodetect: Run, folder: Path, species: Path) -> None:
    outcome = ecodetect("classify", folder / "oak", "-m", species, "--top", 1)
    lines = outcome.out.splitlines()
    assert lines[0] == "image,species,species_score"
    assert [line.split(",")[0] for line in lines[1:]] == ["40.png", "64.png", "90.png"]


def test_parts_of_a_folder_are_told_apart(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    for part in ("train", "val"):
        (tmp_path / "all" / part).symlink_to(folder, target_is_directory=True)
    done = answer_pictures(tmp_path / "all", [model(tmp_path / "m.safetensors", patches=True)])
    assert len(done.paths) == 18
    assert "parts-together" in [note.code for note in done.notes]


def test_figures_of_a_classifier() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1, 2])
    ranked = np.array([[0, 1, 2], [0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 0, 2], [0, 2, 1], [0, 2, 1]])
    done = judge(("a", "b", "c"), truth, ranked, np.full(7, 0.5), top=2)
    assert done.matrix.tolist() == [[3, 1, 0], [1, 1, 0], [1, 0, 0]]  # rows are the truth
    assert done.accuracy == pytest.approx(4 / 7)
    assert done.accuracy_top == pytest.approx(6 / 7)
    assert done.macro_recall == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    a, b, c = done.classes
    assert (a.producers, a.users) == (pytest.approx(3 / 4), pytest.approx(3 / 5))
    assert (b.producers, b.users) == (pytest.approx(1 / 2), pytest.approx(1 / 2))
    assert (c.producers, np.isnan(c.users)) == (0, True)
    assert done.interval.low < done.accuracy < done.interval.high
    assert done.calibration_error == pytest.approx(abs(0.5 - 4 / 7))


def test_scores_that_promise_what_is_kept_have_no_calibration_error() -> None:
    score = np.repeat([0.25, 0.75], 400)
    right = np.tile([True, False, False, False], 100), np.tile([True, True, True, False], 100)
    assert calibration_error(score, np.concatenate(right)) == pytest.approx(0)
    assert calibration_error(np.ones(10), np.zeros(10, np.bool_)) == 1


# -- what can't be -------------------------------------------------------------------------------------------


def refused(*arguments: object, capfd: pytest.CaptureFixture[str]) -> str:
    capfd.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n"), err[:7]) == ("", 1, "error: ")
    return err


def test_what_is_wrong_is_said_in_one_sentence(
    raster: Path, species: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    points = write_points(tmp_path / "trees.csv", [(50.5, 60.5), (90.5, 60.5)])
    out = tmp_path / "out.gpkg"
    grey = write_raster(tmp_path / "two.tif", noise(2, 80, 80))
    heat = tmp_path / "heat.safetensors"
    bundle.write(heat, learned.bundle(learned.card("heatmap")))
    fewer = model(tmp_path / "fewer.safetensors", classes=("oak", "ash"))
    far = tmp_path / "far.gpkg"
    formats.write(far, stream_of(Layer(np.array([shapely.Point(2.35, 48.85)], dtype=object), crs=WGS84)))
    (tmp_path / "empty").mkdir()
    for arguments, words in [
        ((points, raster, "-m", heat, "-o", out), "heatmap, which finds and doesn't classify"),
        ((points, raster, "-m", "threshold", "-o", out), "is a kind of detector"),
        ((points, grey, "-m", species, "-o", out), "needs bands red, green, blue"),
        ((far, raster, "-m", species, "-o", out), "lies outside the raster"),
        ((points, raster, "-m", species, "-m", fewer, "-o", out), "must know the same"),
        (
            (points, raster, "-m", species, "-o", out, "--top", 9),
            "The number of answers must be 1 to 4; got 9 (--top).",
        ),
        ((points, raster, "-m", species, "-o", tmp_path / "out.png"), "label image"),
        ((points, raster, "-m", species), "-o is missing"),
        ((points, raster, "-m", species, "-o", out, "--sheet", "a.png"), "--sheet"),
        ((tmp_path / "empty", "-m", species), "holds no raster"),
        ((tmp_path / "nowhere", "-m", species), "There is no folder"),
        ((folder, "-m", fewer), "pictures of 'elm', which 'fewer' doesn't know"),
        ((folder / "oak", "-m", species, "--sheet", tmp_path / "e.png"), "say what is right"),
        ((folder, "-m", species, "-o", tmp_path / "a.gpkg"), "must end in .csv"),
    ]:
        assert words in refused("classify", *arguments, capfd=capfd)
    assert not out.exists()


def test_an_existing_file_is_not_replaced_unasked(raster: Path, species: Path, tmp_path: Path) -> None:
    points = write_points(tmp_path / "trees.csv", [(50.5, 60.5), (90.5, 60.5)])
    out = tmp_path / "out.geojson"
    out.write_text("mine")
    with pytest.raises(UserError, match="replace it"):
        classify(points, raster, [species], out)
    assert out.read_text() == "mine"
    classify(points, raster, [species], out, overwrite=True)
    assert len(formats.read(out)) == 2

"""A bundle: one file, the same bytes for the same model, and nothing but a sentence for what is none."""

import errno
import json
import os
import pickle

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from ecodetect.bundle import file as bundle
from ecodetect.bundle.card import SCHEMA, Card, Scaling
from ecodetect.bundle.file import Bundle
from ecodetect.errors import BundleError


def make():
    card = Card(
        name="trees",
        detector="heatmap",
        options={"backbone": "unet", "sigma_px": 3.0, "levels": [1, 2]},
        bands=("red", "green", "blue"),
        scaling=Scaling(offset=(0.0, 0.0, 0.0), span=(255.0, 255.0, 255.0)),
        unit="m",
        gsd=0.6,
        gsd_range=(0.3, 1.0),
        largest=20.0,
        classes=("tree",),
        thresholds={"f1": (0.4,), "count": (0.35,)},
    )
    rng = np.random.default_rng(0)
    weights = {
        "b.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "a.count": np.array(7),
        "empty": np.empty((0, 2)),
    }
    return Bundle(card, weights)


def test_a_bundle_comes_back_with_the_same_bytes(tmp_path):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    made = make()
    bundle.write(one, made)
    found = bundle.read(one)
    bundle.write(two, found)
    assert one.read_bytes() == two.read_bytes()
    assert found.card.to_json() == made.card.to_json()
    assert found.hash == made.hash
    for name, values in made.weights.items():
        assert found.weights[name].dtype == values.dtype
        assert np.array_equal(found.weights[name], values)


def test_others_can_open_it(tmp_path):
    path = tmp_path / "one.safetensors"
    bundle.write(path, make())
    assert np.array_equal(safetensors.numpy.load_file(path)["b.weight"], make().weights["b.weight"])


def test_half_precision_is_for_floats_only():
    small = bundle.half(make().weights)
    assert small["b.weight"].dtype == np.float16
    assert small["a.count"] == 7


def test_a_newer_schema_is_refused(tmp_path):
    path = tmp_path / "new.safetensors"
    bundle.write(path, make())
    path.write_bytes(path.read_bytes().replace(f'\\"schema\\":{SCHEMA}'.encode(), b'\\"schema\\":9'))
    with pytest.raises(BundleError, match="newer ecodetect"):
        bundle.read_card(path)


def test_a_pickle_in_disguise_is_refused_and_not_run(tmp_path):
    path, proof = tmp_path / "evil.safetensors", tmp_path / "proof"

    class Evil:
        def __reduce__(self):
            return open, (str(proof), "w")

    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(BundleError):
        bundle.read(path)
    assert not proof.exists()


def test_weights_without_a_card_are_no_bundle(tmp_path):
    path = tmp_path / "plain.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(3, np.float32)}, path)
    with pytest.raises(BundleError, match="without an ecodetect card"):
        bundle.read_card(path)
    assert bundle.read_weights(path)["a"].shape == (3,)


@given(st.data())
def test_damage_is_one_sentence(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "a.safetensors"
    bundle.write(path, make())
    whole = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 5))):
            whole[data.draw(st.integers(0, 600))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    said = ""
    try:
        bundle.read(path)
    except BundleError as error:
        said = str(error)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bands", "red"), ("bands", []), ("bands", ["red", "red", "blue"]), ("classes", [1]), ("gsd", "0.6"),
        ("gsd", -1), ("gsd", None), ("gsd_range", [0.3]), ("largest", 1e300), ("largest", True),
        ("unit", "feet"), ("fill", "0"), ("thresholds", {"f1": [0.4, 0.5]}), ("thresholds", [0.4]),
        ("scaling", {"offset": [0, 0], "span": [1, 1, 1]}), ("scaling", {"offset": [0] * 3, "span": [0] * 3}),
        ("scaling", {"mode": "survey", "offset": [0] * 3, "span": [1] * 3, "low": 99, "high": 1}),
        ("scaling", 3), ("reach_px", -1), ("reach_px", 10**9), ("reach_px", 2.5), ("reach_px", "far"),
        ("options", []), ("trained_on", [3]), ("trained_on", [{"places": [[1, 2, 3]]}]), ("metrics", "good"),
        ("agreement", {"n": "many"}), ("name", ""), ("detector", 7), ("schema", "1"), ("colour", "green"),
    ],
)  # fmt: skip
def test_a_card_with_a_value_that_none_can_have_is_refused(field, value):
    facts = json.loads(make().card.to_json())
    Card.from_json(json.dumps(facts), source="a.safetensors")
    with pytest.raises(BundleError) as refused:
        Card.from_json(json.dumps({**facts, field: value}), source="a.safetensors")
    assert str(refused.value).startswith("a.safetensors") or "card of a.safetensors" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_card_without_a_reach_is_read_as_before():
    facts = json.loads(make().card.to_json())
    del facts["reach_px"]
    assert Card.from_json(json.dumps(facts), source="a").reach_px is None
    assert Card.from_json(json.dumps({**facts, "reach_px": "whole image"}), source="a").reach_px


def test_what_torch_saves_is_refused_and_not_run(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.safetensors"
    torch.save({"a": torch.zeros(3)}, path)  # a zip with a pickle in it
    with pytest.raises(BundleError, match=r"not a \.safetensors file"):
        bundle.read(path)


def test_a_header_that_claims_more_than_there_is_costs_no_memory(tmp_path):
    path = tmp_path / "a.safetensors"
    bundle.write(path, make())
    whole = path.read_bytes()
    for claimed in (0, 7, 2**20, 2**40, 2**63, 2**64 - 1):
        path.write_bytes(claimed.to_bytes(8, "little") + whole[8:])
        with pytest.raises(BundleError, match="damaged or cut short"):
            bundle.read(path)
    for end in (0, 4, 8, 9, 200, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(BundleError, match="damaged or cut short"):
            bundle.read(path)


def test_no_room_is_one_sentence_and_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleError, match="can't be written: No space left"):
        bundle.write(path, make())
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.safetensors"]

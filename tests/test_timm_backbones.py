"""Networks of timm as encoders: timm's own features, the same in each tile, without torch and timm later."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import learned
import numpy as np
import pytest
import safetensors.numpy

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from ecodetect import extras  # noqa: E402
from ecodetect.bundle.card import Card  # noqa: E402
from ecodetect.bundle.file import Bundle  # noqa: E402
from ecodetect.detectors import heatmap  # noqa: E402
from ecodetect.errors import BundleError, PackageError, UserError  # noqa: E402
from ecodetect.networks import backbones, windows  # noqa: E402
from ecodetect.networks import building as networks  # noqa: E402
from ecodetect.networks import weights as learned_weights  # noqa: E402
from ecodetect.networks.unet import UNet  # noqa: E402
from ecodetect.runtime import torch_network, tracing  # noqa: E402

RGB = ("red", "green", "blue")
# TensorFlow's padding, and no squeeze-and-excitation.
SMALL = "tf_mobilenetv3_small_minimal_100"
SHAPE = {"kind": f"timm/{SMALL}", "width": 4, "depth": 3, "finest": 2, "up": 1}


def card(**changes: object) -> Card:
    return learned.card(options={"network": {**SHAPE, **changes}}, bands=RGB)


@pytest.fixture(scope="module")
def made() -> Bundle:
    bundle = learned.bundle(card())
    return tracing.with_graphs(bundle, lambda: heatmap.network(bundle.card))[0]


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet10t", "test_convnext"])
def test_features_are_those_that_timm_gives(name: str) -> None:
    torch.manual_seed(1)
    whole = timm.create_model(name, features_only=True, feature_cls="getter").eval()
    weights = {key: value.numpy() for key, value in whole.model.state_dict().items()}
    encoder = backbones.encoder(f"timm/{name}", weights, RGB, depth=4).eval()
    image = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        found, wanted = encoder.features(image), whole(image)
    assert encoder.strides[-1] == 16
    assert [64 // maps.shape[2] for maps in found] == encoder.strides
    assert [maps.shape[1] for maps in found] == encoder.channels
    for one, two in zip(found, wanted, strict=False):  # timm's go on to a stride of 32
        assert (one - two).abs().max() <= 1e-5 * two.abs().max()


def test_a_pixel_has_one_answer_in_tiles_of_any_size(made: Bundle) -> None:
    """TensorFlow pads an image by its side: in tiles of other sizes it would see other pixels."""
    network = torch_network.open_network(in_torch(made), lambda: heatmap.network(made.card), device="cpu")
    reach, stride = network.reach_px, network.stride
    assert reach is not None
    rim = -(-reach // stride) * stride
    side = 2 * rim + 20 * stride
    image = np.random.default_rng(0).random((3, side, side), np.float32)
    (whole,) = network.run(image[None])
    for size in (2 * rim + 7 * stride, 2 * rim + 10 * stride):  # an odd and an even number of strides
        for x, y in ((0, stride), (3 * stride, 2 * stride)):
            (tile,) = network.run(image[None, :, y : y + size, x : x + size])
            inner = slice(rim, size - rim)
            there = whole[:, :, y : y + size, x : x + size]
            assert np.abs(tile - there)[:, :, inner, inner].max() < 1e-5 * np.abs(whole).max()


def in_torch(made: Bundle) -> Bundle:
    """The same model without its graph: torch runs it."""
    return Bundle(replace(made.card, graphs={}), made.weights)


def test_the_graph_answers_as_torch(made: Bundle) -> None:
    one, two = (heatmap.open_heatmap(each, "cpu", 1) for each in (made, in_torch(made)))
    assert (one.runtime, two.runtime) == ("onnxruntime", "torch")
    assert (one.stride, one.reach_px) == (two.stride, two.reach_px)
    batch = np.random.default_rng(1).normal(0.5, 0.3, (2, 3, 64, 96)).astype(np.float32)
    (found,), (wanted,) = one.run(batch), two.run(batch)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_answers_that_depend_on_a_place_in_the_image_are_noticed() -> None:
    """Attention within fixed windows sees no farther than these, but not from each pixel equally far."""

    class Windows(UNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = super().forward(x)
            height, width = found.shape[2:]
            padded = torch.nn.functional.pad(found, (0, -width % 6, 0, -height % 6))
            means = torch.nn.functional.avg_pool2d(padded, 6)
            return found + means.repeat_interleave(6, 2).repeat_interleave(6, 3)[:, :, :height, :width]

    torch.manual_seed(0)
    assert torch_network.reach_px(UNet(1, 1, width=2, depth=1), 1) is not None
    assert torch_network.reach_px(Windows(1, 1, width=2, depth=1), 1) is None


def test_first_stages_can_be_frozen() -> None:
    encoder = backbones.encoder("timm/tf_efficientnet_lite0", None, RGB, depth=4)
    stages = encoder.in_stages()
    assert len(stages) == len(encoder.strides)
    held = [id(each) for stage in stages for each in stage.parameters()]
    assert sorted(held) == sorted(id(each) for each in encoder.parameters())
    first = next(part for part in encoder.modules() if isinstance(part, torch.nn.Conv2d))
    assert any(each is first.weight for each in stages[0].parameters())


def test_more_bands_take_the_weights_of_colours_and_their_mean() -> None:
    whole = timm.create_model(SMALL)
    weights = {key: value.numpy() for key, value in whole.state_dict().items()}
    encoder = backbones.encoder(f"timm/{SMALL}", weights, ("nir", "red", "green", "blue"), depth=3)
    first = next(part for part in encoder.modules() if isinstance(part, torch.nn.Conv2d))
    wanted = whole.conv_stem.weight.detach()
    assert torch.allclose(first.weight[:, 1], wanted[:, 0] * 3 / 4)
    assert torch.allclose(first.weight[:, 0], wanted.mean(1) * 3 / 4)


def test_all_kinds_of_networks_take_it() -> None:
    from ecodetect.networks import detection, yolo

    kind = f"timm/{SMALL}"
    image = torch.zeros(1, 3, 64, 64)
    assert yolo.build({"kind": kind, "strides": [8, 16]}, RGB, 1).eval()(image)[0].shape[2:] == (8, 8)
    swept = windows.build({"kind": kind, "evaluation": "dense", "window": 32, "step": 16}, RGB, 2)
    assert swept.eval()(image).shape == (1, 2, 4, 4)
    single = windows.build({"kind": kind, "evaluation": "windows", "window": 40, "step": 40}, RGB, 2)
    assert single.eval()(torch.zeros(1, 3, 40, 40)).shape == (1, 2, 1, 1)
    network = detection.fcos({**learned.PYRAMID, "kind": kind}, RGB, 1, None).eval()
    assert network(image).shape[2] == 6


def test_weights_are_found_by_name_and_never_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("it asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv(learned_weights.VARIABLE, str(tmp_path))
    with pytest.raises(
        UserError, match=r"put resnet18\.safetensors, in timm's naming .*huggingface\.co/timm"
    ):
        backbones.pretrained("timm/resnet18")
    safetensors.numpy.save_file({"a": np.zeros(2, np.float32)}, tmp_path / "resnet18d.safetensors")
    safetensors.numpy.save_file({"b": np.ones(2, np.float32)}, tmp_path / "resnet18.a1_in1k.safetensors")
    assert list(backbones.pretrained("timm/resnet18")) == ["b"]
    with pytest.raises(UserError, match="These aren't weights of timm/resnet18"):
        backbones.encoder("timm/resnet18", backbones.pretrained("timm/resnet18"), RGB)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet18x", r"did you mean .*timm/resnet18\b"),
        ("resnet18.a1_in1k", "did you mean timm/resnet18"),
        ("hf-hub:someone/network", "timm has no network named"),
        ("local-dir:/tmp", "timm has no network named"),
        ("../resnet18", "timm has no network named"),
        ("vit_tiny_patch16_224", "doesn't take images of 128 x 192 px"),
        ("eva_giant_patch14_224", "no features at stride 16"),
    ],
)
def test_what_cannot_be_an_encoder_is_one_sentence(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("it asked the network"))
    with pytest.raises(UserError, match=said), torch.device("meta"):
        backbones.encoder(f"timm/{name}", None, RGB, depth=4)


def test_a_card_that_names_a_huge_network_takes_no_memory(made: Bundle) -> None:
    """Its shapes are compared with the bundle's weights before there is memory for any."""
    lying = Bundle(card(kind="timm/regnety_2560"), made.weights)
    with pytest.raises(BundleError, match="aren't those of the network"):
        torch_network.open_network(lying, lambda: heatmap.network(lying.card), device="cpu")


def test_without_timm_one_sentence_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    there = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "timm" else there(name))
    with pytest.raises(
        PackageError, match=r'needs timm, which isn.t installed: pip install "ecodetect\[train\]"'
    ):
        networks.build(SHAPE, RGB, 1)

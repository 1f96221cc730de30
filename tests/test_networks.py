"""Networks: what they see, what they give back, and what pretrained weights become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

torch = pytest.importorskip("torch")

from ecodetect.errors import UserError  # noqa: E402
from ecodetect.networks import backbones  # noqa: E402
from ecodetect.networks import building as networks  # noqa: E402
from ecodetect.networks import weights as learned_weights  # noqa: E402
from ecodetect.networks.unet import UNet  # noqa: E402
from ecodetect.runtime import torch_network  # noqa: E402

RGB = ("red", "green", "blue")


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("depth", [1, 3])
def test_a_map_as_fine_as_asked(depth: int, up: int) -> None:
    network = UNet(2, 3, width=4, depth=depth, up=up).eval()
    assert network.stride == 2**depth
    assert network(torch.zeros(1, 2, 32, 48)).shape == (1, 3, 32 * up, 48 * up)


def test_the_default_is_small() -> None:
    assert 0.38e6 < torch_network.parameters(UNet(4, 1)) < 0.42e6


@pytest.mark.parametrize("kind", ["unet", "squeezenet1_1"])
def test_nothing_beyond_its_reach_matters(kind: str) -> None:
    torch.manual_seed(0)
    network = networks.build({"kind": kind, "width": 4, "depth": 2, "up": 1}, RGB, 1).eval()
    reach = torch_network.reach_px(network, 3)
    assert reach is not None
    side = 4 * ((2 * reach + 40) // 4)
    image = torch.rand(1, 3, side, side)
    other = image.clone()
    other[..., :8] = 5.0
    with torch.inference_mode():
        change = (network(image) - network(other)).abs().amax(dim=(0, 1, 2))
    assert change[8 + reach :].max() == 0
    assert change[:12].max() > 0


def test_pooling_over_the_image_is_noticed() -> None:
    class Pooling(UNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + x.mean()

    assert torch_network.reach_px(Pooling(1, 1, width=2, depth=1), 1) is None


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1"])
def test_an_encoder_is_the_backbone(name: str) -> None:
    from torchvision import models

    torch.manual_seed(1)
    whole = models.get_model(name).eval()
    weights = {key: value.numpy() for key, value in whole.state_dict().items()}
    encoder = backbones.encoder(name, weights, RGB, depth=4).eval()
    assert encoder.strides[-1] == 16
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        found = encoder.features(image)
        x = image
        for part in [p for stage in encoder.stages for p in stage]:
            x = part(x)
    assert torch.equal(x, found[-1])
    assert [64 // maps.shape[-1] for maps in found] == encoder.strides
    assert [maps.shape[1] for maps in found] == encoder.channels


def test_our_mobilenet_is_torchvisions() -> None:
    from torchvision import models

    whole = models.get_model("mobilenet_v2").eval()
    for layer in whole.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
    weights = {key: value.numpy() for key, value in whole.state_dict().items()}
    encoder = backbones.encoder("mobilenet_v2", weights, RGB).eval()
    image = torch.rand(2, 3, 96, 64)
    with torch.inference_mode():
        wanted = whole.features(image)
        off = (encoder.features(image)[-1] - wanted).abs().max()
    assert off < 1e-5 * wanted.abs().max()


def test_more_bands_take_the_weights_of_colours_and_their_mean() -> None:
    from torchvision import models

    whole = models.resnet18()
    weights = {key: value.numpy() for key, value in whole.state_dict().items()}
    encoder = backbones.encoder("resnet18", weights, ("nir", "red", "green", "blue"), depth=1)
    first = next(part for part in encoder.modules() if isinstance(part, torch.nn.Conv2d))
    wanted = whole.conv1.weight.detach()
    assert torch.allclose(first.weight[:, 1], wanted[:, 0] * 3 / 4)
    assert torch.allclose(first.weight[:, 0], wanted.mean(1) * 3 / 4)


def test_pretrained_weights_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(learned_weights.VARIABLE, str(tmp_path))
    safetensors.numpy.save_file({"a": np.zeros(2, np.float32)}, tmp_path / "vgg11_bn_x.safetensors")
    safetensors.numpy.save_file({"b": np.ones(2, np.float32)}, tmp_path / "vgg11_x.safetensors")
    assert list(backbones.pretrained("vgg11")) == ["b"]
    assert list(backbones.pretrained("vgg11_bn")) == ["a"]
    with pytest.raises(UserError, match="These aren't weights of vgg11"):
        backbones.encoder("vgg11", backbones.pretrained("vgg11"), RGB)


def test_the_backbone_of_a_detector_of_coco_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights lie deeper in the file, and a MobileNet's without the name of its features."""
    from torchvision import models

    monkeypatch.setenv(learned_weights.VARIABLE, str(tmp_path))
    torch.manual_seed(0)
    whole = models.mobilenet_v3_large()
    held = {"rpn.head.cls_logits.bias": np.zeros(3, np.float32)}
    for key, value in whole.features.state_dict().items():
        if not key.endswith("num_batches_tracked"):  # torchvision freezes the normalisation there
            held[f"backbone.body.{key}"] = value.numpy()
    name = "fasterrcnn_mobilenet_v3_large"
    safetensors.numpy.save_file(held, tmp_path / f"{name}_fpn_coco.safetensors")
    safetensors.numpy.save_file(
        {"wrong": held["rpn.head.cls_logits.bias"]}, tmp_path / f"{name}_320_fpn.safetensors"
    )
    weights = backbones.pretrained("mobilenet_v3_large", "coco")
    encoder = backbones.encoder("mobilenet_v3_large", weights, RGB)
    first = next(part for part in encoder.modules() if isinstance(part, torch.nn.Conv2d))
    assert torch.equal(first.weight, whole.features[0][0].weight)
    with pytest.raises(
        UserError, match="weights of COCO for mobilenet_v3_large and resnet50, not for 'resnet18'"
    ):
        backbones.pretrained("resnet18", "coco")


def test_a_pickled_file_isnt_opened(tmp_path: Path) -> None:
    pickled = tmp_path / "resnet18.pth"
    pickled.write_bytes(b"cos\nsystem\n(S'touch /tmp/opened'\ntR.")
    with pytest.raises(UserError, match=r"resnet18\.pth is a pickled file, which may hold a program"):
        learned_weights.from_file(pickled)


def test_what_cannot_be_an_encoder_is_one_sentence() -> None:
    with pytest.raises(UserError, match="did you mean"):
        backbones.encoder("resnet19", None, RGB)
    with pytest.raises(UserError, match="can't be an encoder"):
        backbones.encoder("alexnet", None, RGB)
    with pytest.raises(UserError, match="learned from scratch"):
        networks.build({"kind": "unet", "width": 4, "depth": 1, "up": 1}, RGB, 1, {})


def test_as_many_proposals_for_an_area_in_chips_to_learn_from_as_in_tiles_to_scan() -> None:
    """Otherwise the second stage meets other proposals than it has learned from, and finds by tile."""
    from ecodetect.networks import detection

    settings = {
        "kind": "squeezenet1_1", "strides": [8], "coarsest": 16, "width": 8, "smallest_px": 16.0,
        "anchors": [[16.0, 24.0]], "ratios": [1.0],
    }  # fmt: skip
    network = detection.faster_rcnn(settings, ("red", "green", "blue"), 1, None)
    kept = {}
    for side, use in ((192, "training"), (384, "testing")):
        images = torch.zeros(1, 3, side, side)
        boxes = torch.tensor([[[20.0, 20.0, 40.0, 40.0, 0.0]]])
        targets = {"boxes": boxes, "background": torch.ones(1, 1, side, side)}
        network.train(use == "training")
        with torch.no_grad():
            network(images, targets if use == "training" else None)
        proposer = network.model.rpn
        kept[use] = np.array([proposer.pre_nms_top_n(), proposer.post_nms_top_n()]) / side**2
    np.testing.assert_allclose(kept["training"], kept["testing"], rtol=0.01)

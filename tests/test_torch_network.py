"""The runtime: the same numbers as the network that was trained, and one sentence for what can't be run."""

from __future__ import annotations

from dataclasses import replace

import learned
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ecodetect.bundle.card import Card  # noqa: E402
from ecodetect.bundle.file import Bundle, half  # noqa: E402
from ecodetect.detectors import heatmap  # noqa: E402
from ecodetect.errors import BundleError, UserError  # noqa: E402
from ecodetect.runtime import torch_network  # noqa: E402


@pytest.mark.parametrize("kind", ["unet", "mobilenet_v2"])
def test_folded_is_the_same(kind: str) -> None:
    card = learned.card(options={"network": {"kind": kind, "width": 4, "depth": 2, "up": 1}})
    made = learned.bundle(card)
    eager = heatmap.network(card).eval()
    torch_network.load(eager, made.weights, name="it")
    network = torch_network.open_network(made, heatmap.network(card), device="cpu")
    batch = np.random.default_rng(0).random((2, 4, 32, 40), dtype=np.float32)
    with torch.inference_mode():
        wanted = eager(torch.from_numpy(batch)).numpy()
    (found,) = network.run(batch)
    assert np.abs(found - wanted).max() < 1e-5
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in network.module.modules())
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in eager.modules())


def test_weights_stored_in_16_bits_are_run_in_32() -> None:
    card = learned.card()
    small = Bundle(card, half(learned.bundle(card).weights))
    (found,) = torch_network.open_network(small, heatmap.network(card), device="cpu").run(
        np.zeros((1, 4, 16, 16), np.float32)
    )
    assert found.dtype == np.float32


def test_weights_of_another_network_are_refused() -> None:
    made = learned.bundle(learned.card())
    wider = replace(made.card, options={"network": {**learned.TINY, "width": 6}})
    with pytest.raises(BundleError, match="aren't those of the network"):
        torch_network.open_network(Bundle(wider, made.weights), heatmap.network(wider), device="cpu")
    less = dict(list(made.weights.items())[1:])
    with pytest.raises(BundleError, match="aren't those of the network"):
        torch_network.open_network(Bundle(made.card, less), heatmap.network(made.card), device="cpu")


def test_a_device_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match="device cuda isn't available"):
        torch_network.choose("cuda")
    assert torch_network.choose("auto") in ("cpu", "mps")


def test_the_reach_on_a_card_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = learned.bundle(learned.card())
    module = heatmap.network(made.card)
    found = torch_network.reach(module, 4)
    assert found == torch_network.open_network(made, module, device="cpu").reach_px
    monkeypatch.setattr(torch_network, "reach_px", lambda *_: pytest.fail("it was looked for again"))
    for stated, reach in ((found, found), ("whole image", None)):
        card = replace(made.card, reach_px=stated)
        network = torch_network.open_network(Bundle(card, made.weights), heatmap.network(card), device="cpu")
        assert (network.reach_px, network.is_local) == (reach, reach is not None)


def test_a_damaged_card_asks_for_no_memory() -> None:
    made = learned.bundle(learned.card())
    for options in (
        {"kind": "unet", "width": 40_000, "depth": 9, "up": 1},  # some 10^14 weights
        {"kind": "unet", "width": 1024, "depth": 7, "up": 1},  # allowed, but not of these weights
        {"kind": "unet", "width": 4, "depth": 2, "up": 7},
        {"kind": "unet", "width": 4, "depth": -2, "up": 1},
        {"kind": "unet", "width": "x", "depth": 2, "up": 1},
        {"kind": "unet", "width": 4, "depth": 2},
    ):
        card = replace(made.card, options={"network": options})

        def build(card: Card = card) -> torch.nn.Module:
            return heatmap.network(card)

        with pytest.raises(BundleError, match=r"describes|is damaged"):
            torch_network.open_network(Bundle(card, made.weights), build, device="cpu")
    network = torch_network.open_network(made, lambda: heatmap.network(made.card), device="cpu")
    (one,) = network.run(np.ones((1, 4, 16, 16), np.float32))
    module = torch_network.open_network(made, heatmap.network(made.card), device="cpu")
    assert (one == module.run(np.ones((1, 4, 16, 16), np.float32))[0]).all()

"""The runtime: the same numbers as the network that was trained, and one sentence for what can't be run."""

from __future__ import annotations

from dataclasses import replace

import learned
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ecodetect import runtime  # noqa: E402
from ecodetect.bundle import Bundle, BundleError, half  # noqa: E402
from ecodetect.detectors import heatmap  # noqa: E402
from ecodetect.errors import UserError  # noqa: E402


@pytest.mark.parametrize("kind", ["unet", "mobilenet_v2"])
def test_folded_is_the_same(kind: str) -> None:
    card = learned.card(options={"network": {"kind": kind, "width": 4, "depth": 2, "up": 1}})
    made = learned.bundle(card)
    eager = heatmap.network(card).eval()
    runtime.load(eager, made.weights, name="it")
    network = runtime.open_network(made, heatmap.network(card), device="cpu")
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
    (found,) = runtime.open_network(small, heatmap.network(card), device="cpu").run(
        np.zeros((1, 4, 16, 16), np.float32)
    )
    assert found.dtype == np.float32


def test_weights_of_another_network_are_refused() -> None:
    made = learned.bundle(learned.card())
    wider = replace(made.card, options={"network": {**learned.TINY, "width": 6}})
    with pytest.raises(BundleError, match="aren't those of the network"):
        runtime.open_network(Bundle(wider, made.weights), heatmap.network(wider), device="cpu")
    less = dict(list(made.weights.items())[1:])
    with pytest.raises(BundleError, match="aren't those of the network"):
        runtime.open_network(Bundle(made.card, less), heatmap.network(made.card), device="cpu")


def test_a_device_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match="--device cuda isn't there"):
        runtime.choose("cuda")
    assert runtime.choose("auto") in ("cpu", "mps")

"""Networks of boxes side by side on the same tile, as `scan` runs them.

    python -m benchmarks.speed.box_networks

Weights are at random, for objects of 20 to 90 px; folded, channels last, both cores. Counted is the fastest
of some rounds in turns, after one that doesn't count.
"""

from __future__ import annotations

import time

import click
import numpy as np
import torch

from benchmarks.measuring import machine, table
from ecodetect.bundle.card import Card, Scaling
from ecodetect.detectors.learned import Wishes
from ecodetect.detectors.table import network_kind
from ecodetect.runtime import torch_network

NETWORKS = (
    ("yolo", "nano"),
    ("yolo", "mobilenet_v2"),
    ("ssd", "mobilenet_v2"),
    ("fcos", "mobilenet_v2"),
    ("retinanet", "mobilenet_v2"),
    ("faster_rcnn", "mobilenet_v2"),
    ("faster_rcnn", "resnet50"),
)


@click.command()
@click.option("--side", default=768, show_default=True, help="Side of the tile, px.")
@click.option("--rounds", default=4, show_default=True)
def main(side: int, rounds: int) -> None:
    """Measure."""
    torch.set_num_threads(2)
    networks = {names: _network(*names) for names in NETWORKS}
    tile = torch.rand(1, 3, side, side).to(memory_format=torch.channels_last)
    seconds: dict[tuple[str, str], list[float]] = {names: [] for names in NETWORKS}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for names, network in networks.items():
                began = time.perf_counter()
                network(tile)
                seconds[names].append(time.perf_counter() - began)
    fastest = {names: min(each[1:]) for names, each in seconds.items()}
    slowest = max(fastest.values())
    rows = [
        [
            " ".join(names),
            f"{sum(each.numel() for each in networks[names].parameters()) / 1e6:.1f}",
            f"{side**2 / 1e6 / taken:.2f}",
            f"{slowest / taken:.1f}",
        ]
        for names, taken in fastest.items()
    ]
    click.echo(f"{machine()}; {side} x {side} px\n")
    click.echo(table(["network", "million weights", "Mpx/s", "times the slowest"], rows))


def _network(name: str, kind: str) -> torch.nn.Module:
    kind_of = network_kind(name)
    sizes = np.random.default_rng(0).uniform(20, 90, 400)
    card = Card(
        name=name,
        detector=name,
        options=kind_of.card_options(sizes, np.empty(0), Wishes(network={"kind": kind})),
        bands=("red", "green", "blue"),
        scaling=Scaling(offset=(0.0,) * 3, span=(1.0,) * 3),
        unit="px",
        largest=180.0,
        classes=("object",),
    )
    module: torch.nn.Module = kind_of.network(card, None).eval()
    if name == "yolo":
        module.answers = ("one",)  # type: ignore[assignment]
    return torch_network.folded(module).to(memory_format=torch.channels_last)


if __name__ == "__main__":
    main()

"""Spoil models in ONNX, as `export` writes them: bytes, fields, cards; each is scanned with.

python -m benchmarks.robustness.fuzz_onnx --minutes 20
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import learned

from benchmarks.robustness import fuzz_bundles
from benchmarks.robustness.fuzz_bundles import LEFT, SCENE, write_scene
from benchmarks.robustness.fuzzing import Target, main
from benchmarks.robustness.mutations import protobuf_field, protobuf_fields, spoil_json, spoilt
from ecodetect import exporting
from ecodetect.bundle import file as bundle
from ecodetect.bundle.file import KEY

YOLO = {"network": {"kind": "nano", "strides": [4, 8], "size": "nano"}, "typical_px": 10.0}
_METADATA = 14  # of a model


def make(folder: Path) -> dict[str, str]:
    """Small networks of points, of boxes and of windows, exported, each beside a raster for it."""
    opened = {}
    cards = {
        "heatmap": learned.card(unit="m", gsd=0.4, gsd_range=(0.1, 0.6), largest=8.0, reach_px=16),
        "yolo": learned.card("yolo", options=YOLO, thresholds={"f1": (0.02,)}, reach_px=48),
        "sliding_window": learned.card("sliding_window", reach_px=48),
    }
    for name, card in cards.items():
        place = folder / name
        place.mkdir()
        write_scene(place / SCENE)
        with tempfile.TemporaryDirectory() as elsewhere:
            bundle.write(Path(elsewhere) / "m.safetensors", learned.bundle(card))
            exporting.export(Path(elsewhere) / "m.safetensors", place / "model.onnx")
        opened[name] = "model.onnx"
    return opened


def spoil(data: bytes, chance: random.Random, donors: Sequence[bytes]) -> bytes:
    """A model with faults anywhere, or, in one case of six, in its card only."""
    if chance.random() < 1 / 6:
        try:
            fields = [
                (
                    number,
                    wire,
                    _with_card(value, chance)
                    if number == _METADATA and KEY.encode() in value[:20]
                    else value,
                )
                for number, wire, value in protobuf_fields(data)
            ]
            return b"".join(protobuf_field(*each) for each in fields)
        except (ValueError, LookupError, TypeError, RecursionError):
            pass
    return spoilt(data, chance, donors)


def _with_card(entry: bytes, chance: random.Random) -> bytes:
    """An entry of the metadata, key and value, with another card."""
    parts = [
        (number, wire, spoil_json(value, chance) if number == 2 else value)
        for number, wire, value in protobuf_fields(entry)
    ]
    return b"".join(protobuf_field(*each) for each in parts)


TARGET = Target(
    "onnx",
    make,
    fuzz_bundles.run,
    spoil=spoil,
    share=1.0,
    most_s=30,
    batch=300,
    left=LEFT,
    modules=("onnxruntime", "ecodetect.runtime.onnx_network"),
)

if __name__ == "__main__":
    sys.exit(main(TARGET))

"""What networks in whole numbers of 8 bits would bring on a CPU, and what they would cost.

    python -m benchmarks.accuracy.lower_precision nuclei TRAIN/images VAL/images VAL/labels --within 6px

The graph of a shipped model is quantised by ONNX Runtime: static, a scale for each channel of the weights,
calibrated on what the network sees in pictures of TRAIN. VAL is scanned as it is and quantised, in this one
process, and both are judged. Needs onnx (in the extra `train`).

It is worth offering if it is 1.4 times as fast at less than 0.003 of F1.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
from ecodetect_cli.main import main as ecodetect
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.measuring import machine, table
from ecodetect.runtime import onnx_network

_PICTURES = 12  # of the training ground, to calibrate on
_BATCHES = 24  # of each session
_SIDE_PX = 512  # of a tile, of which the middle is taken

Batches = list[dict[str, NDArray[Any]]]
open_session = onnx_network.open_session


class Heard:
    """A session that remembers what it is given."""

    def __init__(self, session: Any, batches: Batches) -> None:
        self._session, self._batches = session, batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, outputs: Any, given: dict[str, NDArray[Any]], *rest: Any) -> Any:
        if len(self._batches) < _BATCHES:
            self._batches.append({name: _middle(batch) for name, batch in given.items()})
        return self._session.run(outputs, given, *rest)


def _middle(batch: NDArray[Any]) -> NDArray[Any]:
    first = [max(0, (side - _SIDE_PX) // 64 * 32) for side in batch.shape[2:]]
    return batch[:32, :, first[0] : first[0] + _SIDE_PX, first[1] : first[1] + _SIDE_PX].copy()


class Replayed(CalibrationDataReader):  # type: ignore[misc]
    """Batches, one after the other, as calibration wants them."""

    def __init__(self, batches: Batches) -> None:
        self._rest = iter(batches)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._rest, None)


@contextlib.contextmanager
def sessions(made: Any) -> Iterator[None]:
    """A context in which `made` opens sessions; those that look at each layer stay as they are."""

    def opened(content: bytes, name: str, **how: Any) -> Any:
        return (made if how.get("is_optimized", True) else open_session)(content, name, **how)

    onnx_network.open_session = opened
    try:
        yield
    finally:
        onnx_network.open_session = open_session


def quantised(content: bytes, batches: Batches, *, in_7_bits: bool) -> bytes:
    """The model with weights and activations of 8 bits.

    in_7_bits : weights use 7 of them: without VNNI, sums of two products are held in 16 bits.
    """
    with tempfile.TemporaryDirectory() as name:
        whole, ready, made = (Path(name) / f"{each}.onnx" for each in ("whole", "ready", "made"))
        whole.write_bytes(content)
        quant_pre_process(whole, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            made,
            Replayed(batches),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=in_7_bits,
        )
        return made.read_bytes()


def judged(model: str, images: Path, truth: Path, within: str | None) -> tuple[float, float]:
    """Seconds of CPU of a scan, and its F1."""
    with tempfile.TemporaryDirectory() as name:
        out, said = Path(name) / "found.gpkg", io.StringIO()
        began = time.process_time()
        scanned = ecodetect(["scan", str(images), "-m", model, "-o", str(out), "--device", "cpu", "--quiet"])
        seconds = time.process_time() - began
        how = [] if within is None else ["--within", within]
        with contextlib.redirect_stdout(said):
            ecodetect(["evaluate", str(out), str(truth), "--image", str(images), *how, "--json"])
        if scanned:
            raise click.ClickException(f"the scan ended with {scanned}")
        return seconds, float(json.loads(said.getvalue())["f1"])


def alone(work: Any, *given: Any) -> Any:
    """What a function returns in a process of its own: opened networks are remembered in theirs."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def heard(model: str, pictures: list[str]) -> dict[str, tuple[bytes, Batches]]:
    """The graphs that a scan runs, and some of what they are given."""
    found: dict[str, tuple[bytes, Batches]] = {}

    def hearing(content: bytes, name: str, **how: Any) -> Any:
        session, place = open_session(content, name, **how)
        if b"RoiAlign" in content:  # features under boxes: nothing to quantise
            return session, place
        _, batches = found.setdefault(sha256(content).hexdigest(), (content, []))
        return Heard(session, batches), place

    with tempfile.TemporaryDirectory() as name, sessions(hearing):
        out = Path(name) / "found.gpkg"
        ecodetect(["scan", *pictures, "-m", model, "-o", str(out), "--device", "cpu", "--quiet"])
    return found


def judged_with(graphs: dict[str, bytes], *given: Any) -> tuple[float, float]:
    """`judged`, where other graphs run instead."""

    def other(content: bytes, name: str, **how: Any) -> Any:
        return open_session(graphs.get(sha256(content).hexdigest(), content), name, **how)

    with sessions(other):
        return judged(*given)


@click.command()
@click.argument("model")
@click.argument("train", type=click.Path(exists=True, path_type=Path))
@click.argument("images", type=click.Path(exists=True, path_type=Path))
@click.argument("truth", type=click.Path(exists=True, path_type=Path))
@click.option("--within")
def main(model: str, train: Path, images: Path, truth: Path, within: str | None) -> None:
    """Quantise and compare."""
    pictures = sorted(str(each) for each in train.iterdir() if each.suffix in (".png", ".jpg", ".tif"))
    seen = alone(heard, model, pictures[:: max(1, len(pictures) // _PICTURES)][:_PICTURES])
    given = model, images, truth, within
    plain = alone(judged, *given)
    rows = [["32 bits", f"{plain[0]:.1f}", "", f"{plain[1]:.4f}", ""]]
    for bits in (8, 7):
        graphs = {key: quantised(*each, in_7_bits=bits == 7) for key, each in seen.items()}
        seconds, f1 = alone(judged_with, graphs, *given)
        row = [f"{bits} bits", f"{seconds:.1f}", f"{plain[0] / seconds:.2f}", f"{f1:.4f}"]
        rows.append([*row, f"{f1 - plain[1]:+.4f}"])
    click.echo(f"\n{machine()}, {model}\n\n{table(['weights', 'CPU s', 'times', 'F1', 'difference'], rows)}")


if __name__ == "__main__":
    main()

"""A network in ONNX behind ONNX Runtime: what `torch_network` is for torch, without torch."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.file import Bundle, check_answers, check_weights
from ecodetect.cores import core_count
from ecodetect.errors import BundleError, UserError
from ecodetect.extras import check_installed
from ecodetect.runtime import graph_file, onnx_work
from ecodetect.runtime.onnx_file import Graph, OnnxModel

FEW = 4  # strides that the smallest image is wide: convolutions without padding need more than one
_WIDE_PX = 2048  # about as wide as the widest tile
_LOOKED_AT_PX = 64  # side of what each layer is checked with, where its size isn't fixed
# ONNX Runtime's memory grows in steps: by measurement 164 to 215 bytes a pixel where values take 208.
_ROUNDED_UP = 1.1
_TINY = 1 / 16  # of an image: runs in no time
_FATAL = 4  # the only messages of ONNX Runtime that it prints itself
_PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


@dataclass(frozen=True, eq=False, slots=True)
class Session:
    """A graph behind ONNX Runtime: one tensor (N, C, H, W) in, one or several out.

    session : of ONNX Runtime.
    name : of the model, for messages.
    outputs : names of those that are asked for, in order.
    device : where it runs.
    graph : what it runs.
    values : numbers that it answers per pixel, where these are so many that they count.
    bytes_per_pixel : that a run holds at once, besides its input; None: not known.
    """

    session: Any
    name: str
    outputs: tuple[str, ...]
    device: str
    graph: Graph
    values: int = 0
    bytes_per_pixel: int | None = None
    _known: set[tuple[int, ...]] = field(default_factory=set, repr=False)
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The outputs asked for, in order, each (N, …), of a batch (N, C, H, W).

        One thread at a time: each run takes all cores, and the memory of a run is that of the network.
        Raises BundleError where the graph can't take such a batch, or gives values that aren't finite.
        """
        with self._turn:
            if batch.shape not in self._known:
                self.shapes(batch.shape)
                self._give_back(batch)
                self._known.add(batch.shape)
            found = self._answers(batch)
        check_answers(found, self.name)
        return found

    def _give_back(self, batch: NDArray[np.float32]) -> None:
        """Return the memory that other sizes of images have left: that of a new one often doesn't fit in.

        Only a run can do so; that of a tiny image, as at opening, takes a millisecond. Taking memory again
        costs a tenth of a second, for each of the few sizes that tiles have; without it, a scan of nine
        tiles took half as much again (by measurement, 1,465 MB for 967).
        """
        least = min(self._known, key=math.prod, default=batch.shape)
        is_new = all(batch.shape[2:] != each[2:] for each in self._known)
        if is_new and math.prod(least) <= _TINY * batch.size:
            with suppress(UserError):  # a build without an arena has nothing to give back
                self._answers(np.zeros(least, np.float32), is_last=True)

    def _answers(self, batch: NDArray[np.float32], *, is_last: bool = False) -> list[NDArray[np.float32]]:
        import onnxruntime

        options = onnxruntime.RunOptions()
        if is_last and self.device == "cpu":
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        image = {self.graph.image: np.ascontiguousarray(batch)}
        try:
            found: list[NDArray[np.float32]] = self.session.run(list(self.outputs), image, options)
        except Exception as error:  # ONNX Runtime has a dozen kinds, without a common root
            raise UserError(f"ONNX Runtime can't run '{self.name}': {_first_line(error)}.") from error
        return found

    def shapes(self, batch: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """The shape of each output for a batch (N, C, H, W); raises as `expected` does."""
        return expected(self.graph, batch, self.name, values=self.values)


class Running:
    """What every network says of itself whose graph `session` runs; see `opening.Network`."""

    __slots__ = ()
    session: Session

    @property
    def runtime(self) -> Literal["onnxruntime"]:
        return "onnxruntime"

    @property
    def device(self) -> str:
        return self.session.device

    @property
    def bytes_per_pixel(self) -> int | None:
        return self.session.bytes_per_pixel


@dataclass(frozen=True, eq=False, slots=True)
class OnnxNetwork(Running):
    """A network that is simply the graph "image"."""

    session: Session
    stride: int
    reach_px: int | None

    @property
    def is_local(self) -> bool:
        """Whether the answer at a place doesn't depend on how large the image around it is."""
        return self.reach_px is not None

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The outputs asked for, in order, each (N, …).

        batch : (N, B, H, W), scaled as the card says.
        """
        return self.session.run(batch)


def open_part(
    bundle: Bundle,
    part: str,
    outputs: Sequence[str],
    *,
    device: str = "auto",
    threads: int | None = None,
    values: int = 0,
) -> Session:
    """One of the graphs that a bundle holds, ready to run.

    part : its name.  outputs : those that are wanted.
    device : "auto": a GPU if there is one that ONNX Runtime can use.
    threads : of the CPU; None: one for each core.
    values : see `Session`.
    Raises UserError for a device that isn't available, BundleError for a graph that isn't the card's.
    """
    name = bundle.card.name
    content, graph = graph_file.with_weights(bundle.graphs[part], bundle.weights, outputs, name)
    check_weights(graph.weights, name)
    check_layers(bundle, part, outputs, values=values)
    session, place = open_session(content, name, device=device, threads=threads)
    return Session(session, name, tuple(outputs), place, graph, values)


def open_network(
    model: Bundle,
    outputs: Mapping[str, tuple[int, float]],
    *,
    device: str = "auto",
    threads: int | None = None,
) -> OnnxNetwork:
    """The network of a model in ONNX, or of a bundle with a graph for images, ready to run.

    outputs : name -> channels and pixels per pixel of the input, of what the detector reads.
    device : "auto": a GPU if there is one that ONNX Runtime can use.
    threads : of the CPU; None: one for each core.
    Raises UserError for a device that isn't available, BundleError for a network that isn't the card's.
    """
    name, card = model.card.name, model.card
    if isinstance(model, OnnxModel):
        stride, content, graph = model.stride, model.content, model.graph
    else:
        stride = card.stride or 1
        content, graph = graph_file.with_weights(model.graphs["image"], model.weights, list(outputs), name)
        check_weights(graph.weights, name)
    values = math.ceil(sum(channels * finer**2 for channels, finer in outputs.values()))
    if not isinstance(model, OnnxModel):
        check_layers(model, "image", list(outputs), values=values)
    side, wide = FEW * stride, _WIDE_PX // stride * stride
    made = expected(graph, (1, len(card.bands), side, side), name, values=values)
    for each, (channels, finer) in outputs.items():
        if made.get(each) not in (None, (1, channels, round(side * finer), round(side * finer))):
            raise BundleError(f"The network of '{name}' isn't the one of its card ('{each}' has other maps).")
    _, held = _known(graph, (1, len(card.bands), wide, wide), name, values=values)
    held_each = math.ceil(_ROUNDED_UP * held / wide**2)
    session, place = open_session(content, name, device=device, threads=threads)
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
        raise BundleError(f"The network of '{name}' takes no image, so it isn't the one of its card.")
    fixed = [side for side in inputs[0].shape[2:] if isinstance(side, int)]
    if fixed:
        raise BundleError(
            f"'{name}' was exported for tiles of {fixed[0]} px only; to scan, export it without a tile size."
        )
    there = [each.name for each in session.get_outputs()]
    lacking = [each for each in outputs if each not in there]
    if lacking:
        raise BundleError(
            f"'{name}' was exported without the output '{lacking[0]}' (it has {', '.join(there)}):"
            " export it with the same options that you scan with."
        )
    reach = card.reach_px if isinstance(card.reach_px, int) else None
    ready = Session(session, name, tuple(outputs), place, graph, values, held_each)
    network = OnnxNetwork(ready, stride, reach)
    answers = network.run(np.zeros((1, len(card.bands), side, side), np.float32))
    for answer, (each, (channels, finer)) in zip(answers, outputs.items(), strict=True):
        wanted = (1, channels, round(side * finer), round(side * finer))
        if np.shape(answer) != wanted or answer.dtype != np.float32:
            raise BundleError(f"The network of '{name}' isn't the one of its card ('{each}' has other maps).")
    return network


def check_layers(bundle: Bundle, part: str, outputs: Sequence[str], *, values: int = 0) -> None:
    """Raise BundleError where a layer of a bundle's graph gives a value that isn't finite, on noise.

    What is too large within a network may come out of it as 0, 6 or 1, by its clamps and gates.
    values : see `Session`.
    """
    name = bundle.card.name
    content, graph = graph_file.with_weights(
        bundle.graphs[part], bundle.weights, outputs, name, has_layers=True
    )
    stride = bundle.card.stride or 1
    side = max(-(-_LOOKED_AT_PX // stride), FEW) * stride
    sides = [side if each is None else each for each in graph.shape[1:]]
    if len(sides) != 3 or not all(1 <= each <= _WIDE_PX for each in sides):
        raise BundleError(f"The network of '{name}' takes no image, so it isn't the one of its card.")
    expected(graph, (1, *sides), name, values=values)
    session, _ = open_session(content, name, device="cpu", threads=1, is_optimized=False)
    noise = np.random.default_rng(0).normal(0.5, 0.5, (1, *sides)).astype(np.float32)
    Session(session, name, graph.outputs, "cpu", graph, values).run(noise)


def expected(graph: Graph, image: Sequence[int], name: str, *, values: int = 0) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's outputs for an image (N, B, H, W).

    values : see `Session`.
    Raises BundleError, before a session is created, for a graph that `export` didn't write, or that takes
    more memory or time than a network can need for this number of pixels.
    """
    return _known(graph, image, name, values=values)[0]


def _known(
    graph: Graph, image: Sequence[int], name: str, *, values: int = 0
) -> tuple[dict[str, tuple[int, ...]], int]:
    """The shapes of the outputs, and the most bytes held at once; as `expected`."""
    try:
        return onnx_work.work(graph, tuple(image), values=values)
    except (ValueError, IndexError, OverflowError, MemoryError) as error:
        raise BundleError(f"The network of '{name}' isn't one that ecodetect exports: {error}.") from error


def devices() -> list[str]:
    """Devices that the installed ONNX Runtime is built for, the fastest first."""
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    return [device for device, provider in _PROVIDERS.items() if provider in providers]


def open_session(
    content: bytes, name: str, *, device: str = "auto", threads: int | None = None, is_optimized: bool = True
) -> tuple[Any, str]:
    """A session of ONNX Runtime for a file's content, and the device that it runs on.

    is_optimized : whether steps may be put together, which takes time and changes the last digits.
    """
    check_installed(f"The model '{name}'", "onnxruntime")
    import onnxruntime

    onnxruntime.set_default_logger_severity(_FATAL)
    there = devices()
    place = there[0] if device == "auto" else device
    if place not in there:
        raise UserError(
            f"The device {device} isn't available for ONNX; available: {', '.join(there)}.",
            parameter="device",
        )
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _FATAL
    if not is_optimized:
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.intra_op_num_threads = threads or core_count()
    # Waiting threads must leave the cores to the thread that reads the next tile.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(content, settings, providers=[_PROVIDERS[place]])
    except Exception as error:  # ONNX Runtime has a dozen kinds, without a common root
        raise BundleError(f"ONNX Runtime can't open '{name}': {_first_line(error)}.") from error
    if _PROVIDERS[place] not in session.get_providers():  # it silently drops providers that can't be loaded
        if device != "auto":
            raise UserError(
                f"The device {device} isn't available for ONNX: its libraries can't be loaded.",
                parameter="device",
            )
        place = "cpu"
    return session, place


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")

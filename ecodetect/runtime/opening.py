"""Where a detector gets its network from, whichever runs it: ONNX Runtime or torch.

On a CPU, ONNX Runtime runs the graphs that a bundle holds: it starts in half a second and is the faster of
the two. torch, which takes five seconds to start, runs on GPUs, runs bundles without graphs, and runs where
ONNX Runtime isn't installed. Neither is imported before it is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.file import Bundle
from ecodetect.extras import check_installed
from ecodetect.runtime.onnx_file import OnnxModel

if TYPE_CHECKING:
    from ecodetect.networks.network import TrainableNetwork

# Name of an output -> its channels, and its pixels per pixel of the input along an axis (1/8: a stride of 8).
Outputs = Mapping[str, tuple[int, float]]

Runtime = Literal["onnxruntime", "torch"]  # as they are imported

# What pip may have installed them from. They unpack into one folder, so there should be one only.
DISTRIBUTIONS: Mapping[Runtime, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"),
    "torch": ("torch",),
}
_CALLED = {"onnxruntime": "ONNX Runtime", "torch": "torch"}
_PLACES = {"cpu": "the CPU", "cuda": "CUDA", "mps": "MPS"}

# Where a driver for GPUs leaves a trace; asking torch would import it.
_TRACES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd", r"C:\Windows\System32\nvcuda.dll")

# What to do about a bundle without graphs where torch isn't installed.
_GRAPHS = ", or give it a graph where torch is, by ecodetect export"


class Network(Protocol):
    """A network that only answers.

    runtime, device : what runs it, and where.
    stride : sides of batches are multiples of it, and so are shifts that change nothing.
    reach_px : how far from a pixel its answer depends on others, in input pixels; None: on the whole image.
    is_local : whether the answer at a place doesn't depend on how large the image around it is.
    bytes_per_pixel : of the input, that a run holds at once, besides the input; None: not known.
    """

    @property
    def runtime(self) -> Runtime: ...

    @property
    def device(self) -> str: ...

    @property
    def stride(self) -> int: ...

    @property
    def reach_px(self) -> int | None: ...

    @property
    def is_local(self) -> bool: ...

    @property
    def bytes_per_pixel(self) -> int | None: ...

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The outputs, in order, each (N, …), of a batch (N, B, H, W) that is scaled as the card says."""
        ...


def open_network(
    bundle: Bundle,
    build: Callable[[], TrainableNetwork],
    outputs: Outputs,
    *,
    device: str = "auto",
    threads: int | None = None,
    around: Callable[[Bundle], Network] | None = None,
) -> Network:
    """The network of a bundle, or of a model in ONNX, ready to run.

    build : how torch's module for the bundle's card is made; not called where torch doesn't run.
    outputs : what the network gives, in order; names are those in ONNX.
    device : "auto": a GPU if there is one; "cpu", "cuda", "mps".
    threads : of the CPU; None: one for each core.
    around : opens the network of a bundle with graphs, where it isn't simply the graph "image".
    Raises UserError for a device that isn't available, BundleError for a network that isn't the card's.
    """
    if isinstance(bundle, OnnxModel) or (around is None and runs_graphs(bundle, device)):
        from ecodetect.runtime import onnx_network

        return onnx_network.open_network(bundle, outputs, device=device, threads=threads)
    if around is not None and runs_graphs(bundle, device):
        return around(bundle)
    return open_in_torch(bundle, build, outputs, device=device, threads=threads)


def open_in_torch(
    bundle: Bundle,
    build: Callable[[], TrainableNetwork],
    outputs: Outputs | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
) -> Network:
    """The network of a bundle, run by torch; arguments and errors as of `open_network`."""
    who = f"The model '{bundle.card.name}'"
    if not bundle.graphs:
        check_installed(f"{who} has no graph for ONNX Runtime, so it", "torch", otherwise=_GRAPHS)
    check_installed(who, "torch")
    from ecodetect.runtime import torch_network

    return torch_network.open_network(bundle, build, outputs=outputs, device=device, threads=threads)


def runs_graphs(bundle: Bundle, device: str) -> bool:
    """Whether ONNX Runtime runs the graphs of a bundle on this device; otherwise torch runs its network."""
    if not bundle.graphs or find_spec("onnxruntime") is None:
        return False
    has_torch = find_spec("torch") is not None
    if device == "cpu" or not has_torch:
        return True
    return device == "auto" and not (may_have_gpu() and _has_gpu())


def may_have_gpu() -> bool:
    """Whether this machine has a GPU's driver, or is a Mac with Apple's chips."""
    if sys.platform == "darwin":
        import platform

        return platform.machine() == "arm64"
    return any(Path(trace).exists() for trace in _TRACES)


def _has_gpu() -> bool:
    from ecodetect.runtime import torch_network

    return torch_network.choose("auto") != "cpu"


def in_words(runtime: Runtime, device: str | None = None) -> str:
    """What runs a network, with its version, and where: `ONNX Runtime 1.32.0 on the CPU`."""
    versions = (installed(name) for name in DISTRIBUTIONS[runtime])
    version = next(filter(None, versions), "").partition("+")[0]  # torch's says for which GPUs it is
    place = "" if device is None else f" on {_PLACES.get(device, device)}"
    return f"{_CALLED[runtime]} {version}".rstrip() + place


def installed(distribution: str) -> str | None:
    """The installed version, without importing it."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def usual_runtime(bundle: Bundle) -> str:
    """What runs the network of a bundle where nobody names a device, in words; imports neither runtime."""
    takes_torch = not isinstance(bundle, OnnxModel)
    needed: Runtime = "torch" if takes_torch and not runs_graphs(bundle, "cpu") else "onnxruntime"
    if find_spec(needed) is None:
        return f"{_CALLED[needed]}, which isn't installed"
    if needed == "torch":
        return in_words("torch")
    if not may_have_gpu():
        return in_words("onnxruntime", "cpu")
    if takes_torch and find_spec("torch") is not None:
        return f"{in_words('onnxruntime', 'cpu')}, or {in_words('torch')} on a GPU that it can use"
    return in_words("onnxruntime")

"""Where a detector gets its network from, whichever runs it: torch for a bundle, ONNX Runtime for ONNX.

Neither is imported before it is needed: who scans with ONNX needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.file import Bundle
from ecodetect.extras import check_installed
from ecodetect.runtime.onnx_file import OnnxModel

if TYPE_CHECKING:
    from ecodetect.networks.network import TrainableNetwork

# Name of an output -> its channels, and its pixels per pixel of the input along an axis (1/8: a stride of 8).
Outputs = Mapping[str, tuple[int, float]]


class Network(Protocol):
    """A network that only answers; the fields are those of `torch_network.TorchNetwork`."""

    @property
    def device(self) -> str: ...

    @property
    def stride(self) -> int: ...

    @property
    def reach_px(self) -> int | None: ...

    @property
    def is_local(self) -> bool: ...

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
) -> Network:
    """The network of a bundle, or of a model in ONNX, ready to run.

    build : how torch's module for the bundle's card is made; not called for ONNX.
    outputs : what the network gives, in order; names are those in ONNX.
    device, threads : see `torch_network.open_network`.
    Raises UserError for a device that isn't available, BundleError for a network that isn't the card's.
    """
    opened: Any
    if isinstance(bundle, OnnxModel):
        from ecodetect.runtime import onnx_network

        opened = onnx_network.open_network(bundle, outputs, device=device, threads=threads)
    else:
        check_installed(
            f"The model '{bundle.card.name}'",
            "torch",
            otherwise="; the detectors threshold and blobs need nothing more",
        )
        from ecodetect.runtime import torch_network

        opened = torch_network.open_network(bundle, build, outputs=outputs, device=device, threads=threads)
    network: Network = opened
    return network

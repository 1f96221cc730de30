"""A network made ready to run: weights from a bundle, batch normalisation folded in, on the device there is.

The one place where networks meet numpy. Folding and channels-last memory give 1.5 to 2.9 times the speed of
the network as it was trained, and the same numbers to 3e-6; half precision on a CPU is slower, so never used.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode

from ecodetect.bundle.card import MOST_REACH_PX
from ecodetect.bundle.file import Bundle, Weights, check_answers, largest_weight
from ecodetect.errors import BundleError, UserError
from ecodetect.networks.network import TrainableNetwork

# A larger receptive field counts as the whole image.
_FARTHEST_PX = MOST_REACH_PX // 2
_MOST_SHIFTED = 1e-4  # of the largest answer, that a shift may change


@dataclass(frozen=True, eq=False, slots=True)
class TorchNetwork:
    """A network for inference.

    module : folded, in inference mode.
    name : of the model, for messages.
    device : where it runs.
    stride : sides of batches are multiples of it, and so are shifts that change nothing.
    reach_px : radius of the receptive field in input pixels; None: the whole image.
    outputs : in order: name -> channels, and pixels per pixel of the input along an axis.
    threads : number of CPU threads; None: torch's own.
    """

    module: nn.Module
    name: str
    device: str
    stride: int
    reach_px: int | None
    outputs: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    threads: int | None = None
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _seen: set[str] = field(default_factory=set, repr=False)  # its name, when its layers have been checked

    @property
    def runtime(self) -> Literal["torch"]:
        return "torch"

    @property
    def is_local(self) -> bool:
        """Whether the answer at a place doesn't depend on how large the image around it is."""
        return self.reach_px is not None

    @property
    def bytes_per_pixel(self) -> int | None:
        return None

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The outputs of the module, in order, each (N, …).

        batch : (N, B, H, W), scaled as the card says.
        """
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(batch)).to(self.device)
            with self._turn, _on(self.threads):  # a network may remember how large its image is
                with nullcontext() if self._seen else _layers_checked(self.module, self.name):
                    out = self.module(x.contiguous(memory_format=torch.channels_last))
                self._seen.add(self.name)
            maps = [out] if isinstance(out, torch.Tensor) else list(out)
            found = [part.float().cpu().contiguous().numpy() for part in maps]
        check_answers(found, self.name)
        return found


@contextmanager
def _on(threads: int | None) -> Iterator[None]:
    """A context with this number of torch threads; the process's own number is restored afterwards."""
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _layers_checked(module: nn.Module, name: str) -> Iterator[None]:
    """A context in which a layer raises BundleError for outputs that aren't finite.

    Values that overflow inside a network may leave it as 0, 6 or 1, because of its clamps and gates.
    """

    def check(_: nn.Module, __: Any, out: Any) -> None:
        if isinstance(out, torch.Tensor) and out.is_floating_point() and not bool(out.isfinite().all()):
            raise BundleError(f"The model '{name}' is damaged: it gives a value that isn't finite.")

    layers = [part for part in module.modules() if next(part.children(), None) is None]
    hooks = [layer.register_forward_hook(check) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def open_network(
    bundle: Bundle,
    module: TrainableNetwork | Callable[[], TrainableNetwork],
    *,
    outputs: Mapping[str, tuple[int, float]] | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> TorchNetwork:
    """The network of a bundle, ready to run.

    module : as the detector builds it for the bundle's card, its weights are replaced; or how it is built:
        then it gets no weights of its own first, so that a damaged card can't ask for more memory than the
        bundle's weights take.
    outputs : what the network gives, where it is to be exported; see `TorchNetwork`.
    device : "auto": a GPU if there is one.
    threads : of the CPU; None: as torch has it (a thread for each core).
    Raises UserError for a device that isn't available, BundleError for weights of another network.
    """
    place = choose(device)
    if not isinstance(module, TrainableNetwork):
        module = _built(module, bundle)
    load(module, bundle.weights, name=bundle.card.name)
    module.eval()
    known = bundle.card.reach_px
    if known is None:
        with _on(threads):
            known = reach(module, len(bundle.card.bands))
    stride = module.stride
    ready = folded(module).to(place).to(memory_format=torch.channels_last)
    reach_px = None if known == "whole image" else known
    return TorchNetwork(ready, bundle.card.name, place, stride, reach_px, outputs or {}, threads)


def _built(build: Callable[[], TrainableNetwork], bundle: Bundle) -> TrainableNetwork:
    """The module with memory for its weights, after it is known that these are the bundle's."""
    try:
        with torch.device("meta"), _Unfilled():  # shapes only
            shapes = build().state_dict()
    except UserError:
        raise
    except Exception as error:  # a network of settings that make no sense fails in as many ways
        raise BundleError(f"The card of '{bundle.card.name}' describes no network ({error}).") from error
    _check_weights(shapes, bundle.weights, name=bundle.card.name)
    with _Unfilled():
        return build()


class _Unfilled(TorchFunctionMode):
    """A context without random initialisation, which takes a second and is useless before `load`.

    On the "meta" device it would import torch's compiler, for three seconds more.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0]
        return function(*args, **(kwargs or {}))


def choose(device: str) -> str:
    """The device meant; raises UserError if it isn't available."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there.get(device, False):
        found = ", ".join(name for name, is_there in there.items() if is_there)
        raise UserError(f"The device {device} isn't available; available: {found}.", parameter="device")
    return device


def load(module: nn.Module, weights: Weights, *, name: str) -> None:
    """Put stored weights, of 16 or 32 bits, into a module; raises BundleError unless they are all its own."""
    wanted = module.state_dict()
    _check_weights(wanted, weights, name=name)
    module.load_state_dict(
        {key: torch.from_numpy(np.array(values)).to(wanted[key].dtype) for key, values in weights.items()}
    )


def _check_weights(wanted: Mapping[str, torch.Tensor], weights: Weights, *, name: str) -> None:
    wrong = sorted(
        {key for key in weights if key not in wanted or not _fits(key, weights[key], wanted[key])}
        | (set(wanted) - set(weights))
    )
    if wrong:
        first = " ".join(wrong[0].split())
        raise BundleError(
            f"The weights of '{name}' aren't those of the network that its card describes ({first})."
        )


def _fits(name: str, values: NDArray[Any], wanted: torch.Tensor) -> bool:
    """Whether an array can be these weights: of their shape, floats for floats, no larger than any are."""
    if values.shape != tuple(wanted.shape) or (values.dtype.kind == "f") != wanted.dtype.is_floating_point:
        return False
    if values.dtype.kind != "f" or not values.size:
        return True
    return float(np.abs(values).max()) <= largest_weight(name, np.dtype(np.float32))


def folded(module: nn.Module) -> nn.Module:
    """A copy with each batch normalisation folded into the convolution before it: the same numbers to 1e-5.

    If a module can't be traced (its path depends on values), only those parts are folded that can be.
    """
    return _folded(copy.deepcopy(module).eval())


def _folded(module: nn.Module) -> nn.Module:
    """The same, for a module that may be changed; a part without anything to fold stays what it is."""
    if not any(isinstance(part, nn.BatchNorm2d) for part in module.modules()):
        return module
    try:
        traced = fx.symbolic_trace(module)
    # As many errors as there are things that can't be traced; without a `forward` it is a mere container.
    except (fx.proxy.TraceError, AttributeError, NotImplementedError, RuntimeError, TypeError):
        for name, part in module.named_children():
            setattr(module, name, _folded(part))
        return module
    parts = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(parts[str(node.target)], nn.BatchNorm2d):
            continue
        before = node.args[0]
        convolution = parts.get(str(before.target)) if before.op == "call_module" else None
        # A convolution whose output others see too, or that is applied twice, must stay as it is.
        uses = sum(other.target == before.target for other in traced.graph.nodes)
        if not isinstance(convolution, nn.Conv2d) or len(before.users) > 1 or uses > 1:
            continue
        fused = fuse_conv_bn_eval(convolution, parts[str(node.target)])
        traced.set_submodule(str(before.target), fused)
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.graph.lint()
    traced.recompile()
    traced.delete_all_unused_submodules()
    return traced


def reach(module: TrainableNetwork, in_bands: int) -> int | Literal["whole image"]:
    """What `Card.reach_px` says of a network: to be found once, for it takes seconds.

    `dataclasses.replace(card, reach_px=runtime.reach(network, len(card.bands)))`

    A network that compares what it found all over an image says so by `sees_all`, and one that sees windows
    of a known size says how far they reach by `reach_px`; these aren't asked.
    """
    if module.sees_all:
        return "whole image"
    if module.reach_px is not None:
        return module.reach_px
    found = reach_px(module, in_bands)
    return "whole image" if found is None else found


def reach_px(module: TrainableNetwork, in_bands: int) -> int | None:
    """Radius of the receptive field in input pixels; None: answers depend on the whole image, or their place.

    Measured by placing a NaN in the input: for any weights it spreads over the receptive field. Tested at
    each place within a stride, along x and along y; then by shifting an image.
    """
    stride = module.stride
    twin = copy.deepcopy(module).eval()
    for parent in list(twin.modules()):
        for key, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(parent, key, _Spreading(child))
    half = 8 * stride
    while half <= 2 * _FARTHEST_PX:
        farthest = max(_spread(twin, in_bands, stride, half, across=across) for across in (True, False))
        if farthest < half - stride:
            return None if _depends_on_place(module, in_bands, farthest) else farthest
        half *= 2
    return None


class _Spreading(nn.Module):
    """The effect of a convolution on NaN, without its sums."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.of = convolution

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size, padding = self.of.kernel_size, self.of.padding
        height, width = ((k - 1) * d + 1 for k, d in zip(size, self.of.dilation, strict=True))
        if isinstance(padding, str):
            down, across = (0, 0) if padding == "valid" else (height // 2, width // 2)
        else:
            down, across = padding
        touched = functional.pad(x.isnan().any(dim=1, keepdim=True).float(), (across, across, down, down))
        touched = functional.max_pool2d(touched, (height, width), self.of.stride)
        touched = torch.where(touched > 0, torch.nan, 0.0)
        return touched.repeat(1, self.of.out_channels, 1, 1)


def _spread(module: nn.Module, in_bands: int, stride: int, half: int, *, across: bool) -> int:
    """The largest distance at which a NaN changes the output."""
    x = torch.zeros(stride, in_bands, stride, 2 * half)
    places = np.arange(stride)
    x[places, :, :, half + places] = torch.nan
    with torch.inference_mode():
        out = module(x if across else x.mT.contiguous())
    farthest = 0.0
    for part in [out] if isinstance(out, torch.Tensor) else out:
        lines = (part if across else part.mT).isnan().any(dim=1).any(dim=1).numpy()
        up = lines.shape[1] / (2 * half)
        image, place = np.nonzero(lines)
        centre = half + places[image] + 0.5
        ends = np.maximum(np.abs(place / up - centre), np.abs((place + 1) / up - centre))
        farthest = max(farthest, float(ends.max(initial=0.0)))
    return math.ceil(farthest)


def _depends_on_place(module: TrainableNetwork, in_bands: int, reach: int) -> bool:
    """Whether shifting an image by a stride changes the answers, as with attention within fixed windows."""
    twin, stride = copy.deepcopy(module).eval(), module.stride
    width = 2 * stride * -(-reach // stride) + 8 * stride
    x = torch.rand(1, in_bands, stride, width + stride, generator=torch.Generator().manual_seed(0))
    for across in (True, False):
        with torch.inference_mode():
            views = (x[..., :width], x[..., stride:])
            one, two = (twin(view if across else view.mT.contiguous()) for view in views)
        pairs = [(one, two)] if isinstance(one, torch.Tensor) else zip(one, two, strict=True)
        for here, there in pairs:
            here, there = (here, there) if across else (here.mT, there.mT)
            up = here.shape[-1] / width
            rim, shift = math.ceil(reach * up) + 1, round(stride * up)
            off = (here[..., rim + shift : -rim] - there[..., rim : -rim - shift]).abs().max()
            if not float(off) <= _MOST_SHIFTED * max(float(here.abs().max()), 1e-6):
                return True
    return False


def parameters(module: nn.Module) -> int:
    """The number of a network's parameters."""
    return sum(values.numel() for values in module.parameters())

"""Computes the output shapes and the work of an ONNX graph for an image size, before a runtime opens it.

Only the operators in exports of our detectors are known (`_RULES`), with the attributes that they have there.
Each rule gives output shapes from input shapes, so memory and operations of a graph are known exactly, for
any size of image. A graph that needs more than a network can need is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecodetect.runtime.onnx_file import FLOAT, INT64, TYPES, Graph, Node

Shape = tuple[int, ...]

# What a network takes per pixel of its input: bytes held at once, bytes in all, and sums. What we ship
# takes 208, 1,300 and 15,000; DenseNet and ConvNeXt 312, 4,200 and 53,000.
_MOST_HELD, _MOST_BYTES, _MOST_SUMS = 2_000, 65_536, 5_000_000
# And for each number that it answers: what one of 32 bits takes, twice, and a convolution of 3 x 3.
_OF_A_VALUE = (4, 8, 9 * 1024)
_FLOOR_PX = 4096  # a smaller image may cost as much as one with this number of pixels
_MOST_KNOWN = 4096  # largest tensor whose values are computed: sizes, not pixels


@dataclass(frozen=True, eq=False, slots=True)
class _Value:
    """A tensor: its shape, its type (of ONNX), and, of few whole numbers or constants, what they are."""

    shape: Shape
    kind: int = FLOAT
    known: NDArray[Any] | None = None

    @property
    def numbers(self) -> list[int]:
        """What it holds as whole numbers; raises ValueError where that depends on pixels."""
        if self.known is None or self.known.dtype.kind not in "iu":
            raise ValueError("a size that depends on pixels")
        return [int(each) for each in self.known.ravel()]


def shapes(graph: Graph, image: Shape, *, values: int = 0) -> dict[str, Shape]:
    """The shapes of a graph's outputs for an image (N, B, H, W); see `work`."""
    return work(graph, image, values=values)[0]


def work(graph: Graph, image: Shape, *, values: int = 0) -> tuple[dict[str, Shape], int]:
    """The shapes of a graph's outputs for an image (N, B, H, W), and the most bytes held at once.

    values : numbers that the outputs have per pixel; with thousands of classes they take most.

    Raises ValueError, in words, for an unknown operator, for parts that don't fit together, and for a graph
    that takes more memory or operations than a network can need.
    """
    pixels = max(_FLOOR_PX, image[0] * image[2] * image[3])
    most_held, most_bytes, most_sums = (
        (most + values * each) * pixels
        for most, each in zip((_MOST_HELD, _MOST_BYTES, _MOST_SUMS), _OF_A_VALUE, strict=True)
    )
    there = {name: _given(values) for name, values in graph.weights.items()}
    there[graph.image] = _Value(image)
    taken = sums = held = most = 0
    last = {name: place for place, node in enumerate(graph.nodes) for name in node.inputs}
    last |= dict.fromkeys(graph.outputs, len(graph.nodes))
    gone: dict[int, int] = {}  # after which step how many bytes aren't needed any more
    for place, node in enumerate(graph.nodes):
        rule, allowed = _RULES.get(node.kind, (None, frozenset()))
        if rule is None:
            raise ValueError(f"the operator {node.kind[:40]} is not one of a network that ecodetect exports")
        for name, value in node.attributes.items():
            if name not in allowed or type(value) is not _TYPED.get(name, int):
                raise ValueError(f"the operator {node.kind} has an attribute {name[:40]}")
        inputs = [_input(there, name) for name in node.inputs]
        found, cost = rule(node, inputs)
        if len(found) != len(node.outputs):
            raise ValueError(f"the operator {node.kind} has {len(node.outputs)} outputs")
        for name, value in zip(node.outputs, found, strict=True):
            # An empty tensor would cost nothing, even if later steps enlarge it.
            if min(value.shape, default=1) < (value.known is None):
                raise ValueError(f"the operator {node.kind} would make an empty tensor, or less")
            size = math.prod(value.shape) * np.dtype(TYPES[value.kind]).itemsize
            taken, held, end = taken + size, held + size, last.get(name, place)
            gone[end] = gone.get(end, 0) + size
            there[name] = value
        sums += cost
        if held > most_held or taken > most_bytes or sums > most_sums:
            raise ValueError("its graph takes more than any network for images needs")
        most = max(most, held)
        held -= gone.pop(place, 0)
    missing = [name for name in graph.outputs if name not in there]
    if missing:
        raise ValueError(f"nothing makes its output {missing[0][:40]}")
    return {name: there[name].shape for name in graph.outputs}, most


def _given(values: NDArray[Any]) -> _Value:
    kind = next(number for number, dtype in TYPES.items() if np.dtype(dtype) == values.dtype)
    return _Value(values.shape, kind, values if values.size <= _MOST_KNOWN else None)


def _input(there: Mapping[str, _Value], name: str) -> _Value | None:
    if not name:
        return None
    if name not in there:
        raise ValueError(f"the tensor {name[:40]} is used before it is made")
    return there[name]


# -- rules: a node and its inputs to its outputs, and the sums that it takes -------------------------------

Inputs = Sequence["_Value | None"]
Answer = tuple[list[_Value], int]


def _at(inputs: Inputs, place: int) -> _Value:
    found = inputs[place] if place < len(inputs) else None
    if found is None:
        raise ValueError("an operator lacks an input")
    return found


def _image(inputs: Inputs) -> Shape:
    shape = _at(inputs, 0).shape
    if len(shape) != 4:
        raise ValueError("an operator for images is given something else")
    return shape


def _as_it_is(node: Node, inputs: Inputs) -> Answer:
    value = _at(inputs, 0)
    known = value.known if node.kind == "Identity" else None
    return [_Value(value.shape, value.kind, known)], 8 * math.prod(value.shape)


_RECKONED: Mapping[str, Callable[[Any, Any], Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.floor_divide,
}  # fmt: skip


def _together(node: Node, inputs: Inputs) -> Answer:
    one, two = _at(inputs, 0), _at(inputs, 1)
    shape = tuple(np.broadcast_shapes(one.shape, two.shape))
    is_whole = one.kind != FLOAT
    if is_whole and one.kind != two.kind:
        raise ValueError("numbers of two types")
    if node.kind == "Div" and is_whole and not (_is_above(one, 0) and _is_above(two, 1)):
        # By 0, and the lowest number by -1, ends the process.
        raise ValueError("a division of whole numbers that aren't sizes")
    known = None
    both = [each.known for each in (one, two)]
    if all(each is not None and each.dtype.kind == "i" for each in both) and node.kind in _RECKONED:
        with np.errstate(all="ignore"):  # in their own type, so that they overflow as the runtime's do
            known = np.asarray(_RECKONED[node.kind](*both))
        known = known if np.abs(known.astype(np.float64)).max(initial=0) < 2**40 else None
    return [_Value(shape, one.kind, known)], math.prod(shape)


def _is_above(value: _Value, least: int) -> bool:
    """Whether whole numbers are known, and none is less."""
    return value.known is not None and int(value.known.min(initial=least)) >= least


def _windows(node: Node, shape: Shape, size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns that windows of some size make of an image."""
    pads, strides, dilations = (
        [int(each) for each in node.attributes.get(name, default)]
        for name, default in (("pads", (0,) * 4), ("strides", (1, 1)), ("dilations", (1, 1)))
    )
    if (len(pads), len(strides), len(dilations), len(size)) != (4, 2, 2, 2):
        raise ValueError("windows that aren't those of an image")
    if (
        min(pads) < 0
        or min(*strides, *dilations, *size) < 1
        or max(*pads, *strides, *dilations, *size) > 4096
    ):
        raise ValueError("windows that aren't those of a network")
    if tuple(node.attributes.get("kernel_shape", size)) != tuple(size):
        raise ValueError("windows of two sizes")
    is_ceil = node.attributes.get("ceil_mode", 0)
    found = []
    for axis in (0, 1):
        rim = shape[2 + axis] + pads[axis]
        room = rim + pads[2 + axis] - dilations[axis] * (size[axis] - 1) - 1
        if room < 0:
            raise ValueError("windows wider than their image")
        count = (-(-room // strides[axis]) if is_ceil else room // strides[axis]) + 1
        # A window that begins beyond the image isn't one.
        found.append(count - (is_ceil and (count - 1) * strides[axis] >= rim))
    return found[0], found[1]


def _conv(node: Node, inputs: Inputs) -> Answer:
    shape, weight, group = _image(inputs), _at(inputs, 1).shape, node.attributes.get("group", 1)
    if len(weight) != 4 or group < 1 or weight[1] * group != shape[1] or weight[0] % group:
        raise ValueError("a convolution of other channels")
    rows, columns = _windows(node, shape, weight[2:])
    made = (shape[0], weight[0], rows, columns)
    return [_Value(made)], math.prod(made) * math.prod(weight[1:])


def _widened(node: Node, inputs: Inputs) -> Answer:
    """A transposed convolution whose windows lie side by side: each place becomes as many as a window has."""
    shape, weight = _image(inputs), _at(inputs, 1).shape
    if len(weight) != 4 or weight[0] != shape[1] or not 1 <= min(weight[2:]) <= max(weight[2:]) <= 64:
        raise ValueError("a convolution of other channels")
    usual = {"kernel_shape": weight[2:], "strides": (1, 1), "pads": (0,) * 4, "dilations": (1, 1), "group": 1}
    if {**usual, **node.attributes} != {**usual, "strides": weight[2:]}:
        raise ValueError("windows that don't lie side by side")
    made = (shape[0], weight[1], shape[2] * weight[2], shape[3] * weight[3])
    return [_Value(made)], math.prod(made) * weight[0]


def _pool(node: Node, inputs: Inputs) -> Answer:
    shape, size = _image(inputs), node.attributes.get("kernel_shape", ())
    made = (*shape[:2], *_windows(node, shape, size))
    return [_Value(made)], math.prod(made) * math.prod(size)


def _mean_of_all(node: Node, inputs: Inputs) -> Answer:
    shape = _image(inputs)
    return [_Value((*shape[:2], 1, 1))], math.prod(shape)


def _mean_of_axes(node: Node, inputs: Inputs) -> Answer:
    value, axes = _at(inputs, 0), node.attributes.get("axes", ())
    gone = {_axis(each, len(value.shape)) for each in axes}
    if len(inputs) > 1 or not gone:
        raise ValueError("a mean over axes that aren't stated")
    kept = [1 if axis in gone else side for axis, side in enumerate(value.shape)]
    if not node.attributes.get("keepdims", 1):
        kept = [side for axis, side in enumerate(value.shape) if axis not in gone]
    return [_Value(tuple(kept))], math.prod(value.shape)


def _normalised(node: Node, inputs: Inputs) -> Answer:
    """Channels (N, C, …) brought to a mean and a spread of their own, (C,) each."""
    shape = _at(inputs, 0).shape
    if len(shape) < 3 or any(_at(inputs, place).shape != shape[1:2] for place in (1, 2)):
        raise ValueError("a normalisation of other channels")
    return [_Value(shape)], 4 * math.prod(shape)


def _layer(node: Node, inputs: Inputs) -> Answer:
    """A fully connected layer: rows (n, C) by weights (K, C), or (C, K), plus (K,)."""
    rows, weight = _at(inputs, 0).shape, _at(inputs, 1).shape
    if len(rows) != 2 or len(weight) != 2:
        raise ValueError("a layer that isn't one of rows")
    inside, outside = weight[::-1] if node.attributes.get("transB", 0) else weight
    if rows[1] != inside or (len(inputs) > 2 and _at(inputs, 2).shape != (outside,)):
        raise ValueError("a layer of other channels")
    return [_Value((rows[0], outside))], rows[0] * inside * outside


def _flattened(node: Node, inputs: Inputs) -> Answer:
    value, axis = _at(inputs, 0), node.attributes.get("axis", 1)
    if not 0 <= axis <= len(value.shape):
        raise ValueError("an axis that doesn't exist")
    made = (math.prod(value.shape[:axis]), math.prod(value.shape[axis:]))
    return [_Value(made, value.kind)], math.prod(made)


def _product(node: Node, inputs: Inputs) -> Answer:
    one, two = _at(inputs, 0).shape, _at(inputs, 1).shape
    if len(two) != 2 or not one or one[-1] != two[0]:
        raise ValueError("a product of other sizes")
    made = (*one[:-1], two[1])
    return [_Value(made)], math.prod(made) * two[0]


def _joined(node: Node, inputs: Inputs) -> Answer:
    parts = [_at(inputs, place) for place in range(len(inputs))]
    axis = _axis(node.attributes.get("axis", 0), len(parts[0].shape))
    rests = {(*each.shape[:axis], *each.shape[axis + 1 :]) for each in parts}
    if len(rests) != 1 or len({len(each.shape) for each in parts}) != 1:
        raise ValueError("parts that don't fit together")
    shape = list(parts[0].shape)
    shape[axis] = sum(each.shape[axis] for each in parts)
    arrays = [each.known for each in parts if each.known is not None]
    whole = np.concatenate(arrays, axis) if len(arrays) == len(parts) else None
    return [_Value(tuple(shape), parts[0].kind, _few(whole))], math.prod(shape)


def _split(node: Node, inputs: Inputs) -> Answer:
    value = _at(inputs, 0)
    axis = _axis(node.attributes.get("axis", 0), len(value.shape))
    count = len(node.outputs)
    if len(inputs) > 1 and inputs[1] is not None:
        parts = inputs[1].numbers
    else:
        parts = [value.shape[axis] // max(count, 1)] * count
    if len(parts) != count or sum(parts) != value.shape[axis] or min(parts, default=-1) < 0:
        raise ValueError("parts that aren't the whole")
    made = [_Value((*value.shape[:axis], each, *value.shape[axis + 1 :]), value.kind) for each in parts]
    return made, math.prod(value.shape)


def _slice(node: Node, inputs: Inputs) -> Answer:
    value = _at(inputs, 0)
    starts, ends = _at(inputs, 1).numbers, _at(inputs, 2).numbers
    axes = _at(inputs, 3).numbers if len(inputs) > 3 and inputs[3] else list(range(len(starts)))
    steps = _at(inputs, 4).numbers if len(inputs) > 4 and inputs[4] else [1] * len(starts)
    if len({len(starts), len(ends), len(axes), len(steps)}) != 1 or 0 in steps:
        raise ValueError("a part that isn't one")
    cut = [slice(None)] * len(value.shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        side = value.shape[_axis(axis, len(cut))]
        # From the end backwards ONNX says "before the first" by a number below all, and begins within.
        stop = None if step < 0 and end < -side else end
        cut[_axis(axis, len(cut))] = slice(max(start, -side) if step < 0 else start, stop, step)
    made = tuple(len(range(*each.indices(side))) for each, side in zip(cut, value.shape, strict=True))
    known = None if value.known is None else value.known[tuple(cut)]
    return [_Value(made, value.kind, known)], math.prod(made)


def _resized(node: Node, inputs: Inputs) -> Answer:
    shape = _image(inputs)
    scales = inputs[2] if len(inputs) > 2 else None
    if len(inputs) > 3 or scales is None or scales.known is None or scales.shape != (4,):
        raise ValueError("a resizing to a size that isn't stated")
    factors = [float(each) for each in scales.known]
    if not all(0 < each <= 64 for each in factors) or factors[:2] != [1.0, 1.0]:
        raise ValueError("a resizing of more than 64 times")
    sides = [math.floor(side * each) for side, each in zip(shape[2:], factors[2:], strict=True)]
    rounded = [
        int(np.float32(side) * np.float32(each)) for side, each in zip(shape[2:], factors[2:], strict=True)
    ]
    if sides != rounded:  # runtimes may round either way
        raise ValueError("a resizing to a size that isn't clear")
    made = (*shape[:2], *sides)
    return [_Value(made)], 4 * math.prod(made)


def _spread(node: Node, inputs: Inputs) -> Answer:
    n, channels, rows, columns = _image(inputs)
    side = node.attributes.get("blocksize", 0)
    if not 1 <= side <= 64 or channels % side**2:
        raise ValueError("channels that can't be spread")
    return [_Value((n, channels // side**2, rows * side, columns * side))], n * channels * rows * columns


def _turned(node: Node, inputs: Inputs) -> Answer:
    value = _at(inputs, 0)
    order = tuple(node.attributes.get("perm", range(len(value.shape))[::-1]))
    if sorted(order) != list(range(len(value.shape))):
        raise ValueError("axes that don't exist")
    known = None if value.known is None else value.known.transpose(order)
    return [_Value(tuple(value.shape[each] for each in order), value.kind, known)], math.prod(value.shape)


def _reshaped(node: Node, inputs: Inputs) -> Answer:
    value, sides = _at(inputs, 0), _at(inputs, 1).numbers
    if len(sides) > 8 or min(sides, default=0) < -1 or sides.count(-1) > 1:
        raise ValueError("a shape that isn't one")
    if not node.attributes.get("allowzero", 0):
        if any(not side and place >= len(value.shape) for place, side in enumerate(sides)):
            raise ValueError("a shape that isn't one")
        sides = [side or value.shape[place] for place, side in enumerate(sides)]
    count, rest = math.prod(value.shape), math.prod(side for side in sides if side != -1)
    if -1 in sides:
        sides[sides.index(-1)] = count // rest if rest else 0
    if math.prod(sides) != count:
        raise ValueError("a shape of another size")
    known = None if value.known is None else value.known.reshape(sides)
    return [_Value(tuple(sides), value.kind, known)], count


def _padded(node: Node, inputs: Inputs) -> Answer:
    value, pads = _at(inputs, 0), _at(inputs, 1).numbers
    rank = len(value.shape)
    if len(inputs) > 3 or len(pads) != 2 * rank or max(map(abs, pads), default=0) > 4096:
        raise ValueError("a rim that isn't one of a network")
    made = tuple(side + pads[axis] + pads[rank + axis] for axis, side in enumerate(value.shape))
    return [_Value(made, value.kind)], math.prod(made)


def _constant(node: Node, inputs: Inputs) -> Answer:
    values = node.attributes.get("value")
    if values is None:
        raise ValueError("a constant without a value")
    return [_given(values)], values.size


def _alike(node: Node, inputs: Inputs) -> Answer:
    shape = tuple(_at(inputs, 0).numbers)
    value = node.attributes.get("value")
    first = _given(np.zeros(1, np.float32) if value is None else value)
    known = None
    if first.known is not None and first.known.size == 1 and 0 <= math.prod(shape) <= _MOST_KNOWN:
        known = np.full(shape, first.known.ravel()[0]) if min(shape, default=0) >= 0 else None
    return [_Value(shape, first.kind, known)], abs(math.prod(shape))


def _size(node: Node, inputs: Inputs) -> Answer:
    shape = _at(inputs, 0).shape
    return [_Value((len(shape),), INT64, np.array(shape, np.int64))], 1


def _picked(node: Node, inputs: Inputs) -> Answer:
    """Some of a few whole numbers: of sizes, never of pixels."""
    value, which = _at(inputs, 0), _at(inputs, 1)
    if value.known is None or which.known is None or which.known.dtype.kind != "i" or len(value.shape) != 1:
        raise ValueError("a choice that depends on pixels")
    if (
        len(which.known.ravel())
        and not -value.shape[0] <= int(which.known.min()) <= int(which.known.max()) < (value.shape[0])
    ):
        raise ValueError("a choice of what doesn't exist")
    known = np.asarray(value.known[which.known])
    return [_Value(known.shape, value.kind, known)], known.size


def _with_axes(node: Node, inputs: Inputs) -> Answer:
    value, axes = _at(inputs, 0), _at(inputs, 1).numbers
    if len(axes) + len(value.shape) > 8:
        raise ValueError("too many axes")
    places = sorted(_axis(each, len(value.shape) + len(axes)) for each in axes)
    shape = list(value.shape)
    for place in places:
        shape.insert(place, 1)
    known = None if value.known is None else value.known.reshape(shape)
    return [_Value(tuple(shape), value.kind, known)], math.prod(shape)


def _converted(node: Node, inputs: Inputs) -> Answer:
    value, kind = _at(inputs, 0), node.attributes.get("to", 0)
    if kind not in TYPES:
        raise ValueError("a type that no network has")
    known = None
    if value.known is not None and value.known.dtype.kind == "i" and kind == INT64:
        known = value.known.astype(np.int64)
    return [_Value(value.shape, kind, known)], math.prod(value.shape)


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ValueError("an axis that doesn't exist")
    return axis % rank


def _few(known: NDArray[Any] | None) -> NDArray[Any] | None:
    return known if known is None or known.size <= _MOST_KNOWN else None


_Rule = Callable[[Node, Inputs], Answer]
# Type of an attribute, where it isn't a whole number.
_TYPED: Mapping[str, type] = {
    **dict.fromkeys(("kernel_shape", "pads", "strides", "dilations", "perm", "axes"), tuple),
    **dict.fromkeys(("alpha", "beta", "epsilon", "momentum", "cubic_coeff_a"), float),
    **dict.fromkeys(("mode", "coordinate_transformation_mode", "nearest_mode"), str),
    "value": np.ndarray,
}
_OF_WINDOWS = ("kernel_shape", "pads", "strides", "dilations")


def _rules() -> dict[str, tuple[_Rule, frozenset[str]]]:
    """Operator -> what it does, and its attributes.

    Exports of every detector, on a dozen backbones, have these; a few more differ in a formula only.
    """
    same = ("Relu", "Sigmoid", "Identity", "HardSwish", "Erf", "Tanh", "Softplus", "Sqrt", "Exp", "Neg")
    table: dict[str, tuple[_Rule, Sequence[str]]] = {
        **dict.fromkeys((*same, "Abs", "Clip", "Floor"), (_as_it_is, ())),
        "LeakyRelu": (_as_it_is, ("alpha",)),
        "HardSigmoid": (_as_it_is, ("alpha", "beta")),
        "BatchNormalization": (_as_it_is, ("epsilon", "momentum", "training_mode")),
        "LayerNormalization": (_as_it_is, ("axis", "epsilon", "stash_type")),
        **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "PRelu"), (_together, ())),
        "Conv": (_conv, (*_OF_WINDOWS, "group")),
        "ConvTranspose": (_widened, (*_OF_WINDOWS, "group")),
        "MaxPool": (_pool, (*_OF_WINDOWS, "ceil_mode")),
        "AveragePool": (_pool, (*_OF_WINDOWS, "ceil_mode", "count_include_pad")),
        "GlobalAveragePool": (_mean_of_all, ()),
        "ReduceMean": (_mean_of_axes, ("axes", "keepdims")),
        "InstanceNormalization": (_normalised, ("epsilon",)),
        "MatMul": (_product, ()),
        "Gemm": (_layer, ("alpha", "beta", "transB")),
        "Flatten": (_flattened, ("axis",)),
        "Concat": (_joined, ("axis",)),
        "Split": (_split, ("axis",)),
        "Slice": (_slice, ()),
        "Resize": (
            _resized,
            ("coordinate_transformation_mode", "cubic_coeff_a", "mode", "nearest_mode"),
        ),
        "DepthToSpace": (_spread, ("blocksize", "mode")),
        "Transpose": (_turned, ("perm",)),
        "Reshape": (_reshaped, ("allowzero",)),
        "Pad": (_padded, ("mode",)),
        "Constant": (_constant, ("value",)),
        "ConstantOfShape": (_alike, ("value",)),
        "Shape": (_size, ()),
        "Gather": (_picked, ("axis",)),
        "Unsqueeze": (_with_axes, ()),
        "Cast": (_converted, ("to",)),
    }
    return {name: (rule, frozenset(attributes)) for name, (rule, attributes) in table.items()}


_RULES = _rules()

"""Parses a learned detector's options from a card into a frozen dataclass, checking types and bounds.

A card's options are JSON from an untrusted source. Each learned detector declares its own in a dataclass
`CardOptions` whose fields have types, bounds (`Annotated[float, Within(0, 32)]`) and, where older cards lack
them, defaults. `options_of` reads them. `check` runs when a model's file is opened and before a training
begins, so it reports a wrong card there, in one sentence.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ecodetect.bundle.card import Card
from ecodetect.errors import BundleError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Within:
    """Bounds of a number, inclusive."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Count:
    """Bounds of a number of items, or of the length of a text."""

    low: int
    high: int


# Types of options that several detectors share.
NetworkName = Annotated[str, Count(1, 64)]  # the name of a network
Width = Annotated[int, Within(1, 1024)]  # channels
TypicalPx = Annotated[float, Within(0.1, 1e5)]  # of a typical object; sets the halo, and so the memory
Stride = Literal[4, 8, 16, 32, 64]


def options_of(kind: type[T], card: Card) -> T:
    """The options of a card as a detector's dataclass; raises BundleError, naming the option, on misfit.

    kind : the detector's `CardOptions`.
    """
    try:
        found: T = _read(kind, _Same(card.options))  # type: ignore[arg-type]
        return found
    except ValueError as error:
        raise BundleError(f"The card of '{card.name}' is damaged ({error}).") from error


def check_strides(strides: Sequence[int], card: Card) -> None:
    """Raise BundleError unless each level is half as fine as the one before."""
    if any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
        raise BundleError(
            f"The card of '{card.name}' is damaged (strides can't be {_shown(tuple(strides))})."
        )


class _Same:
    """A mapping hashed by identity: it is looked up for each tile and never changes."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts

    def __hash__(self) -> int:
        return id(self.facts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.facts is self.facts


@lru_cache(maxsize=64)
def _read(kind: Any, same: _Same) -> Any:
    return _parsed(kind, same.facts, "")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _parsed(kind: type[T], facts: Any, where: str) -> T:
    """A dataclass from parsed JSON; raises ValueError, naming the option."""
    if not isinstance(facts, Mapping):
        raise ValueError(f"{where.rstrip('.') or 'options'} can't be {_shown(facts)}")
    fields = {each.name: each for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(facts) - set(fields))
    if unknown:
        raise ValueError(f"there is no option {_shown(where + unknown[0])}")
    values, hints = {}, _hints(kind)  # type: ignore[arg-type]
    for name, field in fields.items():
        if name in facts:
            values[name] = _value(hints[name], facts[name], where + name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"it has no option {where}{name}")
    return kind(**values)


def _value(hint: Any, value: Any, name: str) -> Any:
    """A value of the type that a hint asks for; raises ValueError, naming the option."""
    bounds: Sequence[Any] = ()
    if get_origin(hint) is Annotated:
        hint, *bounds = get_args(hint)
    found = _typed(hint, value, name)
    for bound in bounds:
        size = len(found) if isinstance(bound, Count) else found
        if not bound.low <= size <= bound.high:
            raise ValueError(f"{name} can't be {_shown(value)}")
    return found


def _typed(hint: Any, value: Any, name: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _either(inner, value, name)
    if origin is Literal:
        if any(type(value) is type(word) and value == word for word in inner):
            return value
    elif origin is tuple and isinstance(value, list | tuple):
        return tuple(_value(inner[0], each, name) for each in value)
    elif dataclasses.is_dataclass(hint):
        return _parsed(hint, value, f"{name}.")  # type: ignore[arg-type]
    elif origin is not None and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            return value
    elif hint in (int, float) and not isinstance(value, bool):
        if isinstance(value, int | float) and math.isfinite(value) and (hint is float or value == int(value)):
            return hint(value)
    elif hint in (bool, str) and isinstance(value, hint):
        return value
    raise ValueError(f"{name} can't be {_shown(value)}")


def _either(kinds: Sequence[Any], value: Any, name: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        try:
            return _value(kind, value, name)
        except ValueError as error:
            last = error
    raise last


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"

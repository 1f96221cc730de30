"""What a call of the command line gave, for the tests that use the fixture `ecodetect`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """Exit code and everything written to stdout and stderr, also by C libraries."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]

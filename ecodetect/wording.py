"""Numbers in sentences: one row and four rows, seconds and hours, figures without exponents."""

from __future__ import annotations

import math


def counted(count: int, unit: str, many: str = "") -> str:
    """`1 row`, `4 rows`, `1,200 rows`.  many : the plural, where it isn't made with an s."""
    return f"{count:,} {unit if count == 1 else many or unit + 's'}"


def duration(seconds: float) -> str:
    """A time to wait, in the unit that a person would say: `45 s`, `12 min`, `2.5 h`, `30 h`."""
    seconds = max(seconds, 0.0)
    if seconds < 90:
        return f"{round(seconds)} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 9.95 else f"{round(hours):,} h"


def figure(value: float, digits: int = 3) -> str:
    """A number with this many significant digits, with thousands separators, without an exponent if large.

    Values as small as the rounding of coordinates are 0.
    """
    if not math.isfinite(value):
        return f"{value}"
    if abs(value) < 1e-9:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{rounded:.{digits}g}"


def signed(value: float, digits: int = 3) -> str:
    """`figure` with a plus before what is above 0."""
    text = figure(value, digits)
    return text if value < 0 or text == "0" else f"+{text}"


def signed_percent(share: float) -> str:
    """`+3.8%`, `-12.5%`; a share that rounds to nothing has no minus."""
    return f"{round(share, 3) + 0.0:+.1%}"


def percent(share: float) -> str:
    """`1.2 %`, `99.87 %`: with as many digits as tell it from none and from all."""
    if share >= 1:
        return "100 %"
    if share < 0.995:
        return f"{100 * share:.2g} %"
    rest = max(100 * (1 - share), 1e-4)
    return f"{100 - rest:.{1 - math.floor(math.log10(rest))}f} %"

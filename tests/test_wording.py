"""Numbers in sentences are as a person would say them."""

from __future__ import annotations

import math

import pytest

from ecodetect.wording import counted, duration, figure, percent, signed, signed_percent


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 epochs"), (1, "1 epoch"), (2, "2 epochs"), (12_000, "12,000 epochs")]
)
def test_one_is_no_plural(count: int, said: str) -> None:
    assert counted(count, "epoch") == said
    assert counted(2, "leaf", "leaves") == "2 leaves"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-0.4, "0 s"),
        (-30, "0 s"),
        (0.2, "0 s"),
        (89, "89 s"),
        (100, "2 min"),
        (5300, "88 min"),
        (9000, "2.5 h"),
        (1e5, "28 h"),
    ],
)
def test_a_time_to_wait_is_never_negative(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (12_345, "12,300"),
        (1000, "1,000"),
        (999.6, "1,000"),
        (16.44, "16.4"),
        (100, "100"),
        (0.01234, "0.0123"),
        (-2.3e-12, "0"),
        (-0.0, "0"),
        (-1234.5, "-1,230"),
        (math.nan, "nan"),
    ],
)
def test_a_figure_has_its_digits_and_no_exponent(value: float, said: str) -> None:
    assert figure(value) == said


def test_nothing_has_no_sign() -> None:
    assert [signed(value) for value in (1.5, -1.5, 1e-12, -1e-12)] == ["+1.5", "-1.5", "0", "0"]
    assert [signed_percent(share) for share in (0.038, -0.125, -0.0001)] == ["+3.8%", "-12.5%", "+0.0%"]


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.012, "1.2 %"), (0.5, "50 %"), (0.9963, "99.63 %"), (1 - 1e-9, "99.99990 %"), (1, "100 %")],
)
def test_a_share_is_told_from_all(share: float, said: str) -> None:
    assert percent(share) == said

"""Beside an edge that may cut individuals nobody has marked, a box that doesn't reach the edge is known."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ecodetect.networks.background import (  # noqa: E402
    IGNORED,
    UNKNOWN,
    WRONG,
    WRONG_INSIDE,
    is_wrong,
)


def ground() -> torch.Tensor:
    """A strip of 10 px that is ignored, 20 px beside it, known ground, and from 80 px on unknown."""
    found = torch.full((100, 100), WRONG)
    found[:, :10] = IGNORED
    found[:, 10:30] = WRONG_INSIDE
    found[:, 80:] = UNKNOWN
    return found


@pytest.mark.parametrize(
    ("box", "wrong"),
    [
        ((12, 40, 28, 60), True),  # beside the edge, and clear of it
        ((6, 40, 34, 60), False),  # of the same middle, but it reaches the strip
        ((9.5, 40, 30.5, 60), False),  # by half a pixel
        ((10, 40, 30, 60), True),  # it ends where the strip does
        ((2, 40, 98, 60), True),  # its middle lies on known ground, wherever it reaches
        ((2, 40, 8, 60), False),  # in the strip
        ((84, 40, 90, 60), False),  # on unknown ground
        ((-20, 40, 50, 60), False),  # over the border of the image
    ],
)
def test_a_box_that_found_no_truth(box: tuple[float, ...], wrong: bool) -> None:
    assert is_wrong(torch.tensor([box]), ground()).tolist() == [wrong]


def test_boxes_that_reach_ignored_ground_are_those_that_cover_a_pixel_of_it() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((40, 60)) < 0.01
    whole = torch.where(torch.from_numpy(mask), IGNORED, WRONG_INSIDE)
    low = rng.uniform(0, (50, 30), (200, 2))
    boxes = np.hstack([low, low + rng.uniform(0.5, 15, (200, 2))])
    expected = []
    for x0, y0, x1, y1 in boxes:
        inside = mask[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]
        middle = mask[min(int((y0 + y1) / 2), 39), min(int((x0 + x1) / 2), 59)]
        expected.append(not inside.any() and not middle)
    assert is_wrong(torch.from_numpy(boxes), whole).tolist() == expected

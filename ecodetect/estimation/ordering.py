"""The order in which the cells of a stratum become plots: random, spread over the ground, and endless.

Cells are lined up along a quadtree whose quadrants are shuffled at every node, and taken along that line at
the positions of a van der Corput sequence with a random start. The first n, for every n, are a spatially
balanced sample in which each cell is equally likely; the next plots continue it. The idea is GRTS's (Stevens
and Olsen, JASA 99, 2004) and balanced acceptance sampling's (Robertson and others, Biometrics 69, 2013).
Random numbers are hashes, so that they are the same on every machine and with every version.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]


def uniform(*key: object) -> float:
    """A number in [0, 1) that depends on the key alone."""
    text = "/".join(map(str, key)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") / 2**64


def ordered(columns: ArrayLike, rows: ArrayLike, *, seed: int, name: str, sites: ArrayLike = ()) -> Ints:
    """Cells in the order in which they are to be checked, as indexes, (N,).

    columns, rows : of each cell, from 0.
    name : of the stratum; each has an order of its own.
    sites : the number of the raster of each cell; empty: all cells are on one plane.
    """
    column, row = np.asarray(columns, np.int64), np.asarray(rows, np.int64)
    line = _line(column, row, seed, name)
    site = np.asarray(sites, np.int64)
    if len(site):
        there = np.unique(site)
        rank = np.argsort(np.argsort([uniform(seed, name, "site", each) for each in there.tolist()]))
        line = np.lexsort((np.argsort(line), rank[np.searchsorted(there, site)]))
    return line[_positions(len(line), uniform(seed, name, "start"))]


def _line(column: Ints, row: Ints, seed: int, name: str) -> Ints:
    """The cells along the quadtree, as indexes."""
    levels = int(max(column.max(), row.max(), 1)).bit_length()
    key, path = np.zeros(len(column), np.int64), np.zeros(len(column), np.int64)
    for level in range(levels - 1, -1, -1):
        quadrant = ((row >> level) & 1) * 2 + ((column >> level) & 1)
        nodes, node = np.unique(path, return_inverse=True)
        depth = levels - 1 - level
        ranks = np.array([_shuffled(seed, name, _digits(each, depth)) for each in nodes.tolist()])
        key = key * 4 + ranks[node, quadrant]
        path = path * 4 + quadrant
    return np.argsort(key, kind="stable")


def _digits(path: int, depth: int) -> str:
    """The way to a node: its quadrant on each level from the top."""
    return "".join(str((path >> 2 * level) & 3) for level in range(depth - 1, -1, -1))


def _shuffled(seed: int, name: str, node: str) -> list[int]:
    """The rank of each of the four quadrants of a node."""
    order = sorted(range(4), key=lambda quadrant: uniform(seed, name, node, quadrant))
    return [order.index(quadrant) for quadrant in range(4)]


def _positions(number: int, start: float) -> Ints:
    """All positions of a line of this length, as a van der Corput sequence meets them first."""
    steps = np.arange(2 ** int(2 * number).bit_length(), dtype=np.int64)
    at, bit, value = steps.copy(), 0.5, np.zeros(len(steps))
    while at.any():
        value += bit * (at & 1)
        at >>= 1
        bit /= 2
    places = np.minimum(((value + start) % 1.0 * number).astype(np.int64), number - 1)
    _, first = np.unique(places, return_index=True)
    return places[np.sort(first)]

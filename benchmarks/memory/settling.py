"""A million boxes settled: seconds, growth of memory, and whether the answer is that of greedy suppression.

    python -m benchmarks.memory.settling
    python -m benchmarks.memory.settling --boxes 100000 --check

Boxes of 20 to 60 px, 2.5 to an object with 3 px of jitter, about one object in 80 x 80 px; IoU 0.5. `--check`
walks through them one by one, best first, as the textbook says, and finds the neighbours in an R-tree.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np
import shapely

from ecodetect.settling import Settler, settle

LIMIT = 0.5


def main() -> None:
    """Settle a million boxes and print time, memory and agreement with greedy suppression."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--boxes", type=int, default=1_000_000)
    parser.add_argument("--check", action="store_true", help="compare with the textbook's loop (a minute)")
    given = parser.parse_args()
    bounds, score = make(given.boxes)
    before, started, used = _peak_mb(), time.monotonic(), time.process_time()
    kept = settle(bounds, score, criterion="iou", limit=LIMIT)
    wall, cpu = time.monotonic() - started, time.process_time() - used
    growth = _peak_mb() - before
    print(f"{given.boxes:,} boxes, {kept.sum():,} kept: {wall:.2f} s, {cpu:.2f} CPU s, {growth:.0f} MB more")
    started, used = time.monotonic(), time.process_time()
    streamed, most = _streamed(bounds, score)
    wall, cpu = time.monotonic() - started, time.process_time() - used
    same = "the same boxes" if np.array_equal(streamed, kept) else "OTHER BOXES"
    print(f"as a stream: {wall:.2f} s, {cpu:.2f} CPU s, at most {most:,} boxes held, {same}")
    if given.check:
        same = "the same boxes" if np.array_equal(_greedy(bounds, score), kept) else "OTHER BOXES"
        print(f"one by one: {same}")


def make(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) and their scores, in no order."""
    random = np.random.default_rng(seed)
    objects = int(count / 2.5)
    side = 80 * objects**0.5
    centre, size = random.uniform(0, side, (objects, 2)), random.uniform(20, 60, (objects, 2))
    which = random.integers(0, objects, count)
    middle = centre[which] + random.normal(0, 3, (count, 2))
    half = (size[which] + random.normal(0, 3, (count, 2))).clip(5) / 2
    return np.hstack([middle - half, middle + half]), random.uniform(0, 1, count)


def _streamed(bounds: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, int]:
    """The same from top to bottom in batches, as a scan settles; and the most boxes held at once."""
    order = np.argsort((bounds[:, 1] + bounds[:, 3]) / 2, kind="stable")
    settler = Settler(criterion="iou", limit=LIMIT, reach_px=80)
    found, most = [], 0
    for first in range(0, len(order), 20_000):
        part = order[first : first + 20_000]
        found.append(settler.push(bounds[part], score[part]))
        most = max(most, first + len(part) - settler.waiting + len(part))
    found.append(settler.finish())
    kept = np.zeros(len(score), bool)
    kept[order[np.concatenate(found)]] = True
    return kept, most


def _greedy(bounds: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Best first; each kept box removes the ones that overlap it too much."""
    tree = shapely.STRtree(shapely.box(*bounds.T))
    area = (bounds[:, 2] - bounds[:, 0]) * (bounds[:, 3] - bounds[:, 1])
    kept, gone = np.zeros(len(score), bool), np.zeros(len(score), bool)
    for i in np.argsort(-score, kind="stable"):
        if gone[i]:
            continue
        kept[i] = True
        near = tree.query(shapely.box(*bounds[i]))
        low, high = np.maximum(bounds[near, :2], bounds[i, :2]), np.minimum(bounds[near, 2:], bounds[i, 2:])
        common = np.prod((high - low).clip(0), axis=1)
        gone[near[common / (area[near] + area[i] - common) > LIMIT]] = True
    return kept


def _peak_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    main()

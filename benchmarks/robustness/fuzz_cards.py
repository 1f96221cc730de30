"""Replace, take out, rename and double values in the cards of bundles of every learned kind.

python -m benchmarks.robustness.fuzz_cards --minutes 20
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence

from benchmarks.robustness.fuzz_bundles import LEFT, MODULES, make, run
from benchmarks.robustness.fuzzing import Target, main
from benchmarks.robustness.mutations import spoil_json
from ecodetect.bundle.file import KEY


def spoil(data: bytes, chance: random.Random, donors: Sequence[bytes]) -> bytes:
    """A bundle with one to three faults in its card, which stays JSON; nothing else is changed."""
    length = int.from_bytes(data[:8], "little")
    facts = json.loads(data[8 : 8 + length])
    card = facts["__metadata__"][KEY].encode()
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        try:
            card = spoil_json(card, chance)
        except (ValueError, LookupError, TypeError, RecursionError):  # JSON that Python's reader refuses
            break
    facts["__metadata__"][KEY] = card.decode("utf-8", "surrogatepass")
    head = json.dumps(facts).encode()
    return len(head).to_bytes(8, "little") + head + data[8 + length :]


TARGET = Target("cards", make, run, spoil=spoil, share=1.0, most_s=30, batch=120, left=LEFT, modules=MODULES)

if __name__ == "__main__":
    sys.exit(main(TARGET))

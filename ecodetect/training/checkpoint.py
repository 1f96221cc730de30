"""Checkpoints: a resumed training ends with exactly the weights of an uninterrupted one.

A checkpoint is a `.safetensors` file: network, average, optimizer and random state as tensors, the rest
(step, history, hard negatives) as JSON in its header. It is written to a temporary file and renamed; reading
it runs no code.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ecodetect.errors import UserError
from ecodetect.whole_file import write_whole

KEY = "ecodetect.checkpoint"
LAST, BEST = "last.safetensors", "best.safetensors"  # to resume from, and a bundle to scan with


class CheckpointError(UserError):
    """A checkpoint can't be read or written, or belongs to another training."""


@dataclass(frozen=True, eq=False, slots=True)
class Checkpoint:
    """What is needed to resume.

    tensors : name -> tensor, names as in `network/…`, `average/…`, `optimizer/…`, `random/…`.
    facts : JSON-able: `key` (what is trained on what, see `read`), step, history, hard negatives.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors under `name/`, without this prefix."""
        return {
            key.removeprefix(f"{name}/"): value
            for key, value in self.tensors.items()
            if key.startswith(f"{name}/")
        }


@dataclass(frozen=True, slots=True)
class Folder:
    """Where a training keeps its checkpoints, `last.safetensors` and `best.safetensors`.

    key : a fingerprint of the data: a checkpoint of other data isn't resumed.
    resume : go on from the last checkpoint, if there is one.
    """

    path: Path
    key: str = ""
    resume: bool = False


def write(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write it whole or not at all, even if the machine stops in between."""
    target = Path(path)
    tensors = {name: each.detach().cpu().contiguous() for name, each in checkpoint.tensors.items()}
    text = json.dumps(checkpoint.facts, sort_keys=True, allow_nan=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, save(tensors, metadata={KEY: text}))
    except OSError as error:
        raise CheckpointError(f"{target} can't be written: {error.strerror or error}.") from error


def read(path: str | os.PathLike[str], *, key: str) -> Checkpoint:
    """A checkpoint of the training with this key.

    Raises CheckpointError for a file that isn't a checkpoint, is damaged, or belongs to another training.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(
            f"{path} can't be read ({error}); remove it to train from the beginning."
        ) from error
    if not isinstance(facts, dict):
        raise CheckpointError(
            f"{path} isn't a checkpoint of a training; remove it to train from the beginning."
        )
    if facts.get("key") != key:
        raise CheckpointError(
            f"{path} belongs to a training with other data or settings; train with the same, or remove it to"
            " train from the beginning."
        )
    return Checkpoint(tensors, facts)


def is_over(folder: Path, out: Path) -> bool:
    """Whether a training was killed while its folder was removed, so that `out` is complete."""
    return out.is_file() and (folder / LAST).is_file() and not (folder / BEST).exists()


def remove(folder: Path) -> None:
    """Remove the checkpoints of a training, and their folder unless it holds something else."""
    for name in (BEST, LAST):  # the last without the best: see `is_over`
        (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / f".{name}.part", ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()


def state_of(
    network: nn.Module, average: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> Checkpoint:
    """Network, average, optimizer and random state as tensors."""
    tensors = {f"network/{name}": value.clone() for name, value in network.state_dict().items()}
    tensors |= {f"average/{name}": value.clone() for name, value in average.items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer/{index}/{name}": torch.as_tensor(each).clone() for name, each in slots.items()
        }
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    return Checkpoint(tensors)


def restore(
    checkpoint: Checkpoint,
    network: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Restore the state of `state_of`; `average` is filled in place."""
    network.load_state_dict(checkpoint.part("network"))
    for name, value in checkpoint.part("average").items():
        average[name].copy_(value)
    state = optimizer.state_dict()
    state["state"] = {}
    for key, value in checkpoint.part("optimizer").items():
        index, _, name = key.partition("/")
        state["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(state)
    random = checkpoint.part("random")
    torch.set_rng_state(random["cpu"])
    if "cuda" in random and torch.cuda.is_available():
        torch.cuda.set_rng_state(random["cuda"])

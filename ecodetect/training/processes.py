"""Distributed training: several processes train one network, each with its own GPU; or one alone.

`torchrun --nproc-per-node 4 -m ecodetect_cli train …` starts four. Each processes its share of a batch, and
gradients are averaged (torch's DistributedDataParallel; Li et al. 2020, doi:10.14778/3415478.3415530). Each
judges its share of validation, and the first one writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed, nn

from ecodetect.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that train together.

    rank : its number.  count : of all processes.  device : its device, as torch names it.
    """

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and talks."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share of the items."""
        return items[self.rank :: self.count]

    def gathered(self, mine: Sequence[T]) -> list[T]:
        """The results of all processes, in the order of the items; every process gets them."""
        if self.count == 1:
            return list(mine)
        parts: list[list[T]] = [[] for _ in range(self.count)]
        distributed.all_gather_object(parts, list(mine))
        longest = max(map(len, parts))
        return [part[place] for place in range(longest) for part in parts if place < len(part)]

    def mean(self, value: float) -> float:
        """The mean over the values of all processes."""
        if self.count == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return float(total) / self.count

    def joined(self, network: nn.Module) -> nn.Module:
        """The network whose gradients are averaged over all processes."""
        if self.count == 1:
            return network
        if self.device.startswith("cuda"):
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return nn.parallel.DistributedDataParallel(network)

    def spread(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give all processes the first one's values."""
        if self.count > 1:
            for each in tensors:
                distributed.broadcast(each, 0)

    def wait(self) -> None:
        """Wait until all processes reach this point."""
        if self.count > 1:
            distributed.barrier()


def joined(device: str) -> Processes:
    """This process among those that torchrun has started, if it has.

    device : "cpu", "cuda" or "mps"; of several GPUs each process gets one.
    Raises UserError for more processes on a machine than it has GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "MASTER_ADDR" not in os.environ:
        return Processes(device=device)
    if device == "cuda":
        number = int(os.environ.get("LOCAL_RANK", "0"))
        if number >= torch.cuda.device_count():
            raise UserError(
                f"There are {torch.cuda.device_count()} GPUs here; start no more processes than that."
            )
        device = f"cuda:{number}"
        torch.cuda.set_device(number)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return Processes(distributed.get_rank(), count, device)


def leads() -> bool:
    """Whether this process is the first of those that torchrun has started, or alone."""
    return os.environ.get("RANK", "0") == "0"

"""Run commands as a user would and say what they cost: seconds, seconds of CPU, peak memory.

Other work on the machine disturbs seconds far more than seconds of CPU, so figures are ratios of commands
that were run in turn, and CPU comes first. The peak is that of the kernel's own account (POSIX only).
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ecodetect.cores import core_count

HERE = Path(__file__).parent
# Where `-m idle` comes from; a PYTHONPATH that leads to another tree stays.
PLUGIN = {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(HERE / "plugin")]))}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command cost.

    peak_mb : the most memory it held, in MB (1e6 bytes).
    detecting_s : seconds that `idle` took of it; other detectors don't say.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    output: str = ""
    detecting_s: float = 0.0

    def less(self, other: Cost) -> Cost:
        """This cost without another one's time: start-up."""
        return replace(self, wall_s=self.wall_s - other.wall_s, cpu_s=self.cpu_s - other.cpu_s)


def cost_of(
    command: Sequence[str | os.PathLike[str]],
    *,
    extra: Mapping[str, str] | None = None,
    may_refuse: bool = False,
) -> Cost:
    """Run a command to its end.  extra : environment variables beside the present ones.

    may_refuse : it may end with 2, as ours do when they refuse in a sentence.
    Raises RuntimeError, with what it said, when it fails.
    """
    with tempfile.TemporaryFile() as said:
        started = time.monotonic()
        process = subprocess.Popen(
            [os.fspath(part) for part in command],
            stdout=said, stderr=subprocess.STDOUT, env={**os.environ, **(extra or {})},
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        output = said.read().decode(errors="replace")
    if process.returncode and not (may_refuse and process.returncode == 2):
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{output}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 1e6, output)


def best(costs: Sequence[Cost]) -> Cost:
    """The run of least seconds, with the least CPU and the highest peak of all: other work only adds."""
    fastest = min(costs, key=lambda cost: cost.wall_s)
    cpu, peak = min(cost.cpu_s for cost in costs), max(cost.peak_mb for cost in costs)
    return replace(fastest, cpu_s=cpu, peak_mb=peak)


def scan_command(raster: str | os.PathLike[str], out: str | os.PathLike[str], *flags: str) -> list[str]:
    """`ecodetect scan` of the environment that runs this script."""
    program = Path(sys.executable).with_name("ecodetect")
    return [str(program), "scan", os.fspath(raster), "-o", os.fspath(out), "--overwrite", "-q", *flags]


def make_command(out: Path, size: int, *flags: str) -> list[str]:
    """`make_raster.py`, as a process of its own, so that its memory isn't counted with what follows."""
    return [sys.executable, str(HERE / "make_raster.py"), str(size), str(out), *flags]


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def machine() -> str:
    """The machine in words, for the page of figures."""
    version = platform.python_version()
    return f"{core_count()} cores, {platform.system()} {platform.machine()}, Python {version}"

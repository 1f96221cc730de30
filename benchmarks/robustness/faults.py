"""Kill commands at hundreds of moments, and give them full and read-only disks; run them again and compare.

    python -m benchmarks.robustness.faults /tmp/faults --kills 50
    python -m benchmarks.robustness.faults /tmp/faults --kills 0 --disk /mnt/small  # as root: a tmpfs

A parent that has imported everything forks a child for each run, so that a kill costs what the command
costs. Half of the kills come after a random time; the others at a chosen event: in front of the nth change of
the file system, or on either side of the nth entry into the journal. Each round starts again, is killed once
(every fifth twice), and is run again to its end. Afterwards every output is byte for byte that of an
undisturbed run, nothing lies beside it, and at no moment did half a file have its final name.

With `--disk` the commands write onto a disk with less and less room, then onto one that can't be written to:
each ends well or in one sentence, leaves no half a file, and ends well with more room.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import learned
import torch
from ecodetect_cli.main import main as ecodetect
from little_scene import write_scene
from pyproj import CRS

from benchmarks.measuring import table
from ecodetect.bundle import file as bundle
from ecodetect.detectors import heatmap
from ecodetect.models import choosing as models
from ecodetect.scanning import journal, layout
from ecodetect.training import beginning, loop, planning

SAMPLE = Path(__file__).parents[2] / "sample_data"
PATIENCE_S = 300
INSIDE = "OUT"  # in a command: the folder of outputs


@dataclass(frozen=True)
class Case:
    """A command to be disturbed.

    outputs : names of the files that it makes, or patterns of them; no half of one may be seen.
    command : arguments.
    """

    name: str
    command: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def rasters(self) -> int:
        """How many there are: each that can't be searched has its sentence."""
        return sum(each.endswith(".tif") and each.startswith("IN/") for each in self.command) or 1

    def arguments(self, inputs: Path, out: Path) -> list[str]:
        return [each.replace(INSIDE, str(out)).replace("IN/", f"{inputs}/") for each in self.command]


def cases() -> list[Case]:
    """All commands that are interrupted, with the files that each writes."""
    scan = ("scan", "IN/a.tif", "-q", "--tile", "96")
    by_format = [
        Case(f"scan, {suffix}", (*scan, "-m", "threshold", "-o", f"OUT/o.{suffix}"), (f"o.{suffix}",))
        for suffix in ("geojson", "csv", "gpkg", "fgb", "parquet", "shp", "kml", "json", "xml", "txt", "tif")
    ]
    return [
        *by_format,
        Case(
            "scan, two rasters in one",
            ("scan", "IN/a.tif", "IN/b.tif", *scan[2:], "-m", "blobs", "-o", "OUT/o.gpkg"),
            ("o.gpkg",),
        ),
        Case(
            "scan, two rasters in a folder",
            ("scan", "IN/a.tif", "IN/b.tif", *scan[2:], "-m", "threshold", "-o", "OUT/"),
            ("a.detections.geojson", "b.detections.geojson"),
        ),
        Case(
            "scan, pictures",
            (*scan, "-m", "threshold", "-o", "OUT/o.csv", "--picture", "OUT/p.png", "--sheet", "OUT/s.jpg"),
            ("o.csv", "p.png", "s.jpg"),
        ),
        Case(
            "scan, map of scores",
            (*scan, "-m", "IN/heatmap.safetensors", "-o", "OUT/o.gpkg", "--score-map", "OUT/m.tif"),
            ("o.gpkg", "m.tif"),
        ),
        Case(
            "scan --classify",
            (*scan, "-m", "threshold", "--classify", "IN/species.safetensors", "-o", "OUT/o.geojson"),
            ("o.geojson",),
        ),
        Case(
            "classify",
            ("classify", "IN/a.gpkg", "IN/a.tif", "-m", "IN/species.safetensors", "-o", "OUT/o.gpkg"),
            ("o.gpkg",),
        ),
        Case(
            "evaluate",
            ("evaluate", "IN/a.gpkg", "IN/a.csv", "--image", "IN/a.tif", "-o", "OUT/o.gpkg", "--sheet",
             "OUT/s.png"),
            ("o.gpkg", "s.png"),
        ),
        Case("convert", ("convert", "IN/a.gpkg", "OUT/o.shp"), ("o.shp",)),
        Case("export", ("export", "IN/heatmap.safetensors", "-o", "OUT/m.onnx"), ("m.onnx",)),
        Case(
            "train",
            ("train", "IN/cells.png", "IN/cells.csv", "-o", "OUT/m.safetensors", "--epochs", "3", "--device",
             "cpu", "--workers", "1", "-q"),
            ("m.safetensors", "m.curves.png"),
        ),
    ]  # fmt: skip


def prepared(folder: Path) -> Path:
    """The inputs of all cases."""
    inputs = folder / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate("ab"):
        write_scene(inputs / f"{name}.tif", seed=seed)
    rgb = ("red", "green", "blue")
    bundle.write(inputs / "heatmap.safetensors", learned.bundle(learned.card("heatmap", bands=rgb), 0))
    species = learned.card("sliding_window", bands=rgb, classes=("ash", "oak"), options={"temperature": 1.7})
    bundle.write(inputs / "species.safetensors", learned.bundle(species, 0))
    for name in ("cells.png", "cells.csv"):
        shutil.copy(SAMPLE / name, inputs)
    for name in ("a.gpkg", "a.csv"):
        code, said = Child(
            ["scan", f"{inputs}/a.tif", "-q", "-m", "threshold", "-o", f"{inputs}/{name}"]
        ).ended()
        assert code == 0, said
    return inputs


@contextlib.contextmanager
def small() -> Iterator[None]:
    """Scans of many units and trainings of few steps, in the parent and so in its children."""
    layout.UNIT_PX = 96
    loop.LOOKED_AT = loop.LIGHT_FROM = 4
    planning.LEAST_STEPS = planning.MOST_STEPS = 24
    planning.STEP_PX = 1
    cast(dict[str, Any], heatmap.DEFAULTS)["network"] = learned.TINY
    beginning.nearest = lambda sources: None
    torch.set_num_threads(1)
    # What each child would read again: the cards of our models, and the database of coordinate systems.
    models.known = functools.cache(models.known)
    models.opened("threshold")
    CRS.from_epsg(32630).to_wkt()
    gc.collect()
    gc.freeze()  # or the first collection in a child copies all of the parent
    yield


class Child:
    """A fork that runs a command.

    at : the event in front of which it kills itself, from 1; None: at none.
    watched : the folder whose changes are events.
    """

    def __init__(
        self, arguments: Sequence[str], *, at: int | None = None, watched: Path | None = None
    ) -> None:
        self._said = Path(f"/tmp/faults-{os.getpid()}.log")
        self.started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                with self._said.open("w") as file:
                    os.dup2(file.fileno(), 1)
                    os.dup2(file.fileno(), 2)
                events = Events(at, watched)
                before = set(sys.modules)
                code = ecodetect(list(arguments))
                sys.stdout.flush()
                sys.stderr.flush()
                if watched is not None:
                    new = " ".join(sorted(set(sys.modules) - before))
                    os.write(2, f"\nimported: {new}\nevents: {events.count}\n".encode())
            finally:
                os._exit(code)

    def wait(self, patience_s: float) -> int | None:
        """The exit code, negative for a signal; None where it is still running by then."""
        end = time.monotonic() + patience_s
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                return None
            time.sleep(0.002)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def ended(self) -> tuple[int, str]:
        """Exit code and what was said; a hang is -1000."""
        code = self.wait(PATIENCE_S)
        if code is None:
            self.kill()
            code = -1000
        return code, self._said.read_text(errors="replace")


class Events:
    """Counts the moments at which something durable happens; ends the process in front of one of them."""

    def __init__(self, at: int | None, watched: Path | None) -> None:
        self.count, self._at, self._watched = 0, at, None if watched is None else str(watched)
        if watched is None:
            return
        sys.addaudithook(self._hook)
        add = journal.Journal.add

        def counted(*arguments: Any, **more: Any) -> None:
            self._event()
            add(*arguments, **more)
            self._event()

        journal.Journal.add = counted  # type: ignore[method-assign]

    def _event(self) -> None:
        self.count += 1
        if self.count == self._at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate",
                         "sqlite3.connect"):  # fmt: skip
            return
        if event == "open":
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        if any(
            (self._watched or "") in str(each)
            for each in arguments[:2]
            if isinstance(each, (str, bytes, os.PathLike))
        ):
            self._event()


@dataclass
class Tally:
    """What came of the rounds of one case."""

    kills: int = 0
    at_events: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def fault(self, kind: str, text: str) -> None:
        self.faults[kind] += 1
        if len(self.examples) < 5:
            self.examples.append(f"{kind}: {text[-400:]}")


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files in a folder by name; folders end in a slash."""
    return {
        str(each.relative_to(folder)) + ("/" if each.is_dir() else ""): b""
        if each.is_dir()
        else each.read_bytes()
        for each in sorted(folder.rglob("*"))
    }


def killed_rounds(case: Case, inputs: Path, folder: Path, kills: int, seed: int) -> Tally:
    """Kill a command at random moments, run it again, and count the outcomes; the same for the same seed."""
    chance = random.Random(f"{seed} {case.name}")
    out = folder / "out"
    command = case.arguments(inputs, out)
    _empty(out)
    child = Child(command, watched=out)
    code, said = child.ended()
    assert code == 0, f"{case.name}: {said}"
    right = snapshot(out)
    _import(said)
    _empty(out)
    child = Child(command)
    child.ended()
    seconds = time.monotonic() - child.started
    events = int(said.rsplit("events: ", 1)[1])
    tally = Tally()
    order = list(range(1, events + 1))
    chance.shuffle(order)
    again = 0
    while tally.kills < kills and not tally.faults["hang"]:
        if not again:
            _empty(out)
        again = (again + 1) % 2 if tally.kills % 5 == 4 else 0
        if tally.kills % 2 and order:
            at = order.pop()
            if not order:
                order = list(range(1, events + 1))
                chance.shuffle(order)
            code, said = Child(_resumed(command, out), at=at, watched=out).ended()
            if code == -1000:
                tally.fault("hang", said)
            tally.at_events += code == -signal.SIGKILL
            tally.kills += code == -signal.SIGKILL
        else:
            child = Child(_resumed(command, out))
            if child.wait(chance.random() * seconds) is not None:
                again = 0
                continue  # it was sooner through
            child.kill()
            tally.kills += 1
        _check_whole(case, out, right, tally)
        if again:
            continue
        _finished(command, out, tally)
        now = snapshot(out)
        if now != right:
            kind = "left behind" if set(now) - set(right) else "different"
            tally.fault(kind, f"{[k for k in {*now, *right} if now.get(k) != right.get(k)]}")
    return tally


def _import(said: str) -> None:
    """Import what a child has imported, so that its successors needn't."""
    for name in said.rsplit("imported: ", 1)[1].splitlines()[0].split():
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def _resumed(command: list[str], out: Path) -> list[str]:
    """The command, with --resume where a training stands."""
    stands = command[0] == "train" and (out / "m.safetensors.training").exists()
    return [*command, "--resume"] if stands else command


def _check_whole(case: Case, out: Path, right: dict[str, bytes], tally: Tally) -> None:
    """Nothing that has a final name is half."""
    for name in case.outputs:
        if (out / name).exists():
            family = [
                each for each in right if Path(each).stem == Path(name).stem and not each.endswith(".qml")
            ]
            for each in [name] if Path(name).suffix != ".shp" else family:
                if not (out / each).exists() or (out / each).read_bytes() != right[each]:
                    tally.fault("half a file", each)


def _finished(command: list[str], out: Path, tally: Tally) -> None:
    """Run it as a user would, by what it says, until it ends well."""
    code, said = Child(_resumed(command, out)).ended()
    if code == 2 and "exists" in said and command[0] != "scan":
        done = command[0] == "train" and not (out / "m.safetensors.training").exists()
        code, said = (0, "") if done else Child([*command, "--overwrite"]).ended()
    if code == -1000:
        tally.fault("hang", said)
    elif code != 0:
        tally.fault("not finished", said)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


# -- disks -------------------------------------------------------------------------------------------------


def disk_rounds(case: Case, inputs: Path, disk: Path, steps: int) -> tuple[Tally, Counter[str]]:
    """A disk with less and less room, then one that can't be written to."""
    out = disk / "out"
    command = case.arguments(inputs, out)
    tally, said_of = Tally(), Counter[str]()
    with mounted(disk, "64m") as remount:
        _empty(out)
        code, said = Child(command).ended()
        assert code == 0, said
        right = snapshot(out)
        # The peak isn't known: the journal, the unfinished output and the output. So from 4 times down.
        most = 4 * sum(map(len, right.values())) + 200_000
        for step in range(steps):
            _empty(out)
            ballast = disk / "ballast"
            remount("64m")
            ballast.unlink(missing_ok=True)
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            room = int(most * (1 - step / steps) ** 2)
            ballast.write_bytes(bytes(max(0, free - room)))
            code, said = Child(command).ended()
            _judge(case, out, right, code, said, tally, said_of)
            ballast.unlink()
            _finished(command, out, tally)
            if snapshot(out) != right:
                tally.fault("different with more room", str(sorted(set(snapshot(out)) ^ set(right))))
        _empty(out)
        remount("64m,ro")
        code, said = Child(command).ended()
        _judge(case, out, right, code, said, tally, said_of)
        if code == 0:
            tally.fault("wrote to a read-only disk", said)
        remount("64m,rw")
    return tally, said_of


def _judge(
    case: Case, out: Path, right: dict[str, bytes], code: int, said: str, tally: Tally, said_of: Counter[str]
) -> None:
    tally.kills += code != 0
    lines = [line for line in said.strip().splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    if code == -1000:
        tally.fault("hang", said)
    if code not in (0, 2) or (
        code == 2 and (not 0 < len(errors) <= case.rasters or "Traceback" in said or "internal" in said)
    ):
        tally.fault("not one sentence", f"{code} {said}")
    if code == 2 and errors:
        said_of[errors[0].replace(str(out), "OUT")] += 1
    _check_whole(case, out, right, tally)


@contextlib.contextmanager
def mounted(place: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A tmpfs while it lasts; what is given mounts it again with other options."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], check=True)

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={options}", str(place)], check=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", str(place)], check=True)


def main() -> None:
    """Run the faults that the arguments choose and print a table of outcomes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="for inputs and outputs")
    parser.add_argument("--kills", type=int, default=50, help="per case")
    parser.add_argument("--cases", nargs="+", metavar="TEXT", help="only those whose names begin so")
    parser.add_argument("--disk", type=Path, metavar="FOLDER", help="where small disks are mounted (root)")
    parser.add_argument("--steps", type=int, default=8, help="sizes of the disk per case")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with small():
        inputs = prepared(given.folder)
        chosen = [case for case in cases() if not given.cases or case.name.startswith(tuple(given.cases))]
        kinds = ("half a file", "different", "left behind", "not finished", "hang")
        rows: list[list[object]] = []
        examples: list[str] = []
        for case in chosen if given.kills else ():
            tally = killed_rounds(case, inputs, given.folder, given.kills, given.seed)
            rows.append([case.name, tally.kills, tally.at_events, *(tally.faults[kind] for kind in kinds)])
            examples += [f"{case.name}: {each}" for each in tally.examples]
            print(*rows[-1], flush=True)
        if rows:
            total = [sum(int(str(row[n])) for row in rows) for n in range(1, len(rows[0]))]
            print(table(["command", "kills", "at an event", *kinds], [*rows, ["all", *total]]))
        for case in chosen if given.disk else ():
            tally, said_of = disk_rounds(case, inputs, given.disk, given.steps)
            print(f"{case.name}: {tally.kills} refusals, faults {dict(tally.faults)}", flush=True)
            for text, count in said_of.items():
                print(f"    {count} x {text}")
            examples += [f"{case.name}: {each}" for each in tally.examples]
        print("\n".join(examples))


if __name__ == "__main__":
    main()

"""Run a target on thousands of spoilt files, each in a process that may die, and say what broke it.

A target makes small good files (`make`) and does with a spoilt one what a command does (`run`). Libraries are
imported once; a forked worker then does a few hundred cases, with limits on time and memory, and is forked
again after them or after its death. A case is a pure function of target, seed and number: `--only NUMBER`
runs it again. Broken is

traceback  any exception that isn't a UserError, or exit 1 of the command line
signal     a crash
hang       more seconds of a core than the target's `most_s`, or HANG_S in all
memory     a peak above MOST_MB
stray      anything on a command's stdout or stderr that isn't ours
outside    a file opened, written or removed outside the case's folder
left       a file left in the case's folder, or one of its files changed
network    a connection to anywhere
silent     what the target itself says: another result without a word, numbers that aren't finite

What is looked for outside needs Linux (inotify); the rest any POSIX.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import hashlib
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a case is a matter of one core

from ecodetect_cli.terminal import alone

from benchmarks.robustness.mutations import PORT, SECRET, spoilt
from ecodetect.errors import UserError
from ecodetect.guarding import guard

HANG_S, MOST_MB = 90, 1000
ROOM = 4 << 30  # of address space, beyond what there is when a worker starts: a case can't take the machine
_KEPT_PER_KIND = 3
_MODULES = (
    *("ecodetect.inspection.files", "ecodetect.scanning.files", "ecodetect.converting"),
    *("ecodetect_cli.info", "ecodetect_cli.scan", "ecodetect_cli.convert"),
)
_WRITTEN_S = 1_700_000_000  # when all files of cases were changed


class Silent(Exception):
    """Something is wrong that nobody said."""


class Unexpected(Exception):
    """The command line ended in a way it shouldn't."""


@dataclass(frozen=True)
class Target:
    """What is attacked.

    make : fills a folder with a sub-folder for each good input; returns name of the sub-folder -> name of the
        file in it that is opened. The others lie beside it, and are spoilt too.
    run : given the file, does with it what a command does; raises UserError where it is refused.
    spoil : makes of a file's bytes others.
    share : part of the cases in which the opened file is spoilt, not those beside it.
    most_s : of a core, that a case may take.
    kept : ends of names of files beside the opened one that are never spoilt.
    left : ends of names of files that may be left in the folder, or changed: outputs, journals.
    batch : cases of a worker.
    modules : what is imported before workers fork, beside what all need.
    """

    name: str
    make: Callable[[Path], Mapping[str, str]]
    run: Callable[[Path, random.Random], None]
    spoil: Callable[[bytes, random.Random, Sequence[bytes]], bytes] = spoilt
    share: float = 0.75
    most_s: float = 10
    kept: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    batch: int = 1000
    modules: tuple[str, ...] = ()


@dataclass
class Good:
    """A good input: its files by name, and which is opened."""

    name: str
    opened: str
    files: dict[str, bytes]


@dataclass
class Tally:
    """What has happened so far: outcomes, kinds of errors, inputs used, and the slowest and largest case."""

    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    inputs: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, int] = (0.0, 0)
    peak: tuple[float, int] = (0.0, 0)


def main(target: Target) -> int:
    """Run a target as the arguments say; 1 if anything broke."""
    parser = argparse.ArgumentParser(description=f"Fuzz {target.name}.")
    parser.add_argument("--minutes", type=float, default=20, help="of the clock")
    parser.add_argument("--cases", type=int, default=10**9, help="at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--input", action="append", help="only good inputs whose name contains this")
    parser.add_argument("--only", type=int, help="one case, by its number, in this process")
    parser.add_argument("--again", type=Path, help="a file that was kept, in this process")
    parser.add_argument("--kept", type=Path, help="folder for what breaks; default: a new one")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    for module in (*_MODULES, *target.modules):  # commands import them when they are called
        importlib.import_module(module)
    with tempfile.TemporaryDirectory(prefix=f"fuzz_{target.name}_") as folder:
        sandbox = _Sandbox(Path(folder))
        if given.again is not None:
            good = Good("again", given.again.name, _files_in(given.again.parent))
            _run_here(target, sandbox, good.files, good.opened, random.Random(0))
            return 0
        goods = _made(target, Path(folder) / "good", given.input or [])
        if given.only is not None:
            good, files, chance = _case(target, goods, given.seed, given.only)
            kept = given.kept or Path(tempfile.mkdtemp(prefix="case_"))
            _write(files, kept)
            print(f"{good.name}: {kept / good.opened}", flush=True)
            _run_here(target, sandbox, files, good.opened, chance)
            return 0
        kept = given.kept or Path(tempfile.mkdtemp(prefix=f"broke_{target.name}_"))
        return _attack(target, sandbox, goods, given, kept)


def _attack(target: Target, sandbox: _Sandbox, goods: list[Good], given: Any, kept: Path) -> int:
    began, cpu = time.monotonic(), _children_s()
    until = began + 60 * given.minutes
    tally, case = Tally(), 0
    while case < given.cases and time.monotonic() < until:
        end = min(case + target.batch, given.cases)
        case = _batch(target, sandbox, goods, given.seed, case, end, tally, kept, until)
    seconds, cpu = time.monotonic() - began, _children_s() - cpu
    cases = sum(tally.outcomes.values())
    broken = sum(n for (_, _), n in tally.kinds.items())
    for (kind, where), n in tally.kinds.most_common():
        print(f"  {n:6} {kind}: {where}")
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in sorted(tally.outcomes.items()))
    (slowest, slow), (peak, large) = tally.slowest, tally.peak
    print(
        f"{target.name}: {cases:,} cases of {len(goods)} good inputs in {seconds:.0f} s, {cpu:.0f} s of a"
        f" core (seed {given.seed}): {kinds}; broken {broken:,} in {len(tally.kinds)} ways; slowest"
        f" {slowest:.2f} s (case {slow}), peak {peak:.0f} MB (case {large})"
        + (f"; see {kept}" if broken else "")
    )
    if not broken:
        shutil.rmtree(kept, ignore_errors=True)
    return 1 if broken else 0


def _batch(
    target: Target,
    sandbox: _Sandbox,
    goods: list[Good],
    seed: int,
    start: int,
    end: int,
    tally: Tally,
    kept: Path,
    until: float,
) -> int:
    """Do cases in a forked worker; returns the first that isn't done."""
    sandbox.clean()
    sys.stdout.flush()
    sys.stderr.flush()
    inlet, outlet = os.pipe()
    worker = os.fork()
    if worker == 0:
        code = 1
        try:
            os.close(inlet)
            os.setpgid(0, 0)
            _work(target, sandbox, goods, seed, range(start, end), outlet, until)
            guard.end()  # its time counts as ours
            code = 0
        except BaseException:  # noqa: BLE001 - reported through the pipe, or by the exit code
            os.write(outlet, json.dumps({"harness": traceback.format_exc()}).encode() + b"\n")
        finally:
            os._exit(code)
    os.close(outlet)
    case = start
    with os.fdopen(inlet, "rb") as lines:
        for line in lines:
            said = json.loads(line)
            if "harness" in said:
                raise RuntimeError(said["harness"])
            case = said["case"] + 1
            _count(tally, said)
            if said["kind"]:
                _keep(target, goods, seed, said, tally, kept)
    _, status = os.waitpid(worker, 0)
    _end_group(worker)
    if os.WIFSIGNALED(status) or (os.WIFEXITED(status) and os.WEXITSTATUS(status)):
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)
        kind = "hang" if number in (signal.SIGALRM, signal.SIGPROF, signal.SIGXCPU) else "signal"
        place = sandbox.last_place()
        said = {
            "case": case,
            "kind": kind,
            "where": f"{number} {place}",
            "text": sandbox.said(),
            "outcome": "died",
        }
        said |= {"seconds": target.most_s if kind == "hang" else 0.0, "mb": 0.0}
        said["input"] = _case(target, goods, seed, case)[0].name
        _count(tally, said)
        _keep(target, goods, seed, said, tally, kept)
        case += 1
    return case


def _end_group(leader: int) -> None:
    """End what a worker has started and left."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _count(tally: Tally, said: Mapping[str, Any]) -> None:
    tally.outcomes[said["outcome"]] += 1
    tally.inputs[said["input"]] += 1
    tally.slowest = max(tally.slowest, (said["seconds"], said["case"]))
    tally.peak = max(tally.peak, (said["mb"], said["case"]))


def _keep(
    target: Target, goods: list[Good], seed: int, said: Mapping[str, Any], tally: Tally, kept: Path
) -> None:
    """Count a way to break, and keep the files of its first few cases."""
    way = (said["kind"], said["where"])
    tally.kinds[way] += 1
    if tally.kinds[way] > _KEPT_PER_KIND:
        return
    mark = hashlib.sha256(repr(way).encode()).hexdigest()[:6]
    good, files, _ = _case(target, goods, seed, said["case"])
    folder = kept / f"{said['kind']}-{mark}-{said['case']}"
    _write(files, folder)
    (folder / "why.txt").write_text(
        f"{target.name} seed {seed} case {said['case']}, of {good.name}; opened: {good.opened}\n"
        f"{said['kind']}: {said['where']}\n{said['text']}\n",
        encoding="utf-8",
        errors="backslashreplace",
    )


# -- the worker --------------------------------------------------------------------------------------------


def _work(
    target: Target, sandbox: _Sandbox, goods: list[Good], seed: int, cases: range, outlet: int, until: float
) -> None:
    """In a process of its own: the cases, one after the other, a line of JSON for each."""

    sandbox.enter()
    place = sandbox.place_file()
    for late in (signal.SIGALRM, signal.SIGPROF):
        faulthandler.register(late, place, all_threads=True, chain=True)
    faulthandler.enable(place)
    resource.setrlimit(resource.RLIMIT_AS, (_mapped() + ROOM, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _forget_peak()
    for number in cases:
        if time.monotonic() > until:
            break
        good, files, chance = _case(target, goods, seed, number)
        path = sandbox.lay_out(files) / good.opened
        before = sandbox.listing()
        sandbox.watch(on=True)
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        signal.setitimer(signal.ITIMER_PROF, target.most_s)
        kind, where, text, outcome = "", "", "", "used"
        try:
            target.run(path, chance)
        except UserError as error:
            outcome, text = "refused", str(error)
        except Silent as error:
            kind, where, text = "silent", str(error).partition("\n")[0], str(error)
        except Exception as error:  # noqa: BLE001 - what is looked for
            kind, where, text = "traceback", _where(error), traceback.format_exc()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        seconds, mb = time.monotonic() - began, _peak_mb()
        sandbox.watch(on=False)
        if not kind and mb > MOST_MB:
            kind, where = "memory", f"more than {MOST_MB} MB ({good.name})"
            _forget_peak()  # it takes 2 ms, so only here
        printed = sandbox.printed()
        if not kind and printed:
            kind, where, text = (
                "stray",
                re.sub(r"0x[0-9a-f]+|\d+", "#", printed[:60].partition("\n")[0]),
                printed,
            )
        found = sandbox.noticed()
        if not kind and found:
            kind, where, text = found[0], found[1], f"{found}\n{text}"
        after = sandbox.listing()
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        changed = {name for name in changed if not name.endswith(target.left)} if target.left else changed
        if not kind and changed:
            kind, where = "left", Path(min(changed)).suffix or "a file without suffix"
            text = f"{sorted(changed)}\n{text}"
        said = {
            "case": number,
            "kind": kind,
            "where": where,
            "text": text[:20_000],
            "outcome": kind or outcome,
        }
        said |= {"seconds": seconds, "mb": mb, "input": good.name}
        os.write(outlet, json.dumps(said).encode() + b"\n")


def command(*arguments: object) -> tuple[int, str, str]:
    """Run the command line in this process: exit code, what it printed, what it said on stderr.

    Raises Unexpected for exit 1, and for anything on stderr that isn't a line of ours.
    """
    from ecodetect_cli.main import main as ecodetect

    assert _SANDBOX is not None, "in a worker"
    os.environ["ECODETECT_DEBUG"] = "1"
    try:
        code = ecodetect([os.fspath(a) if isinstance(a, Path) else str(a) for a in arguments])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    out, err = _SANDBOX.printed_apart()
    lines = err.splitlines()
    if code not in (0, 2, 3):
        raise Unexpected(f"exit {code}\n{err}")
    if any(not line.startswith(("error: ", "warning: ", "note: ")) for line in lines):
        raise Silent(f"stray line on stderr\n{err}")
    if any(not char.isprintable() for char in err.replace("\n", "")):
        raise Silent(f"control characters on stderr\n{err!r}")
    if code == 2:
        errors = [line for line in lines if line.startswith("error: ")]
        if not errors:
            raise Silent(f"exit 2 without a sentence\n{err}")
        raise UserError(errors[0])
    return code, out, err


def _where(error: BaseException) -> str:
    """The kind of an exception and the innermost place of ours: one fault, one line."""
    if isinstance(error, Unexpected):
        lines = [line for line in str(error).splitlines() if line.strip()]
        frames = [
            line.split(", in ")[0].strip() for line in lines if "/ecodetect/" in line and "File" in line
        ]
        return f"{lines[0]}: {lines[-1][:100]} ({frames[-1].rpartition('/')[2] if frames else ''})"
    frames_of = traceback.extract_tb(error.__traceback__)
    ours = [each for each in frames_of if "/ecodetect/" in each.filename] or frames_of
    return f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"


def _run_here(
    target: Target, sandbox: _Sandbox, files: Mapping[str, bytes], opened: str, chance: random.Random
) -> None:
    """One case in this process, with its traceback."""

    sandbox.enter(is_quiet=False)
    path = sandbox.lay_out(files) / opened
    before, began = sandbox.listing(), time.monotonic()
    sandbox.watch(on=True)
    try:
        target.run(path, chance)
        said = "used"
    except UserError as error:
        said = f"refused: {error}"
    except Exception:  # noqa: BLE001 - what is looked for
        said = traceback.format_exc()
    sandbox.watch(on=False)
    print(sandbox.printed(), end="", file=sys.__stdout__)
    after = sandbox.listing()
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    seconds, noticed = time.monotonic() - began, sandbox.noticed()
    report = f"{said}\n{seconds:.2f} s, {_peak_mb():.0f} MB; noticed {noticed}; changed {changed}\n"
    os.write(sandbox.terminal, report.encode("utf-8", "backslashreplace"))


# -- cases -------------------------------------------------------------------------------------------------


def _made(target: Target, folder: Path, wanted: list[str]) -> list[Good]:
    """The good inputs, made in a process of its own: libraries must not have threads before workers fork."""
    folder.mkdir()
    maker = os.fork()
    if maker == 0:
        code = 1
        try:
            (folder / "opened.json").write_text(json.dumps(dict(target.make(folder))), encoding="utf-8")
            code = 0
        except BaseException:  # noqa: BLE001 - said, then the process ends
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    if os.waitpid(maker, 0)[1]:
        raise SystemExit(f"the good files of {target.name} can't be made")
    opened = json.loads((folder / "opened.json").read_text(encoding="utf-8"))
    return [
        Good(name, opened[name], _files_in(folder / name))
        for name in sorted(opened)
        if not wanted or any(part in name for part in wanted)
    ]


def _files_in(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "why.txt")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _case(
    target: Target, goods: list[Good], seed: int, number: int
) -> tuple[Good, dict[str, bytes], random.Random]:
    """The files of a case; the same each time."""
    chance = random.Random(f"{target.name} {seed} {number}")
    good = goods[number % len(goods)]
    files = dict(good.files)
    if number < len(goods):
        return good, files, chance  # each good file once as it is
    others = [name for name in files if name != good.opened]
    others = [name for name in others if not name.endswith(target.kept)] if target.kept else others
    is_folder = good.opened not in files
    is_other = is_folder or (others and chance.random() >= target.share)
    name = chance.choice(others) if is_other else good.opened
    donors = [chance.choice(goods).files.get(good.opened, b""), *files.values()]
    for _ in range(5):
        files[name] = target.spoil(files[name], chance, donors)
        if files[name] != good.files[name]:
            break
    return good, files, chance


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (_WRITTEN_S, _WRITTEN_S))


# -- where a case happens ----------------------------------------------------------------------------------

_IN_ACCESS, _IN_MODIFY, _IN_OPEN, _IN_CREATE, _IN_DELETE, _IN_MOVED = 1, 2, 0x20, 0x100, 0x200, 0xC0
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "os.link",
    "os.symlink",
    "os.chmod",
}
_SANDBOX: _Sandbox | None = None


class _Sandbox:
    """A folder with that of the case, one of files that nobody may touch, one for temporary files.

    terminal : the descriptor of stdout as it was.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.case, self.outside, self.temporary, self.here = (
            root / name for name in ("case", "outside", "tmp", "here")
        )
        for folder in (self.case, self.outside, self.temporary, self.here):
            folder.mkdir()
        for suffix in (".tif", ".csv"):
            (self.outside / (Path(SECRET).name + suffix)).write_bytes(b"II*\0" + b"a secret " * 30)
        self.terminal = 1
        self._out = self._err = self._inotify = -1
        self._is_watching = False
        self._events: list[tuple[str, str]] = []
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind(("127.0.0.1", PORT))
            self._listener.listen(50)
        except OSError:
            print(f"port {PORT} is taken: connections of C libraries won't be noticed", flush=True)
        self._listener.setblocking(False)

    def enter(self, *, is_quiet: bool = True) -> None:
        """In a worker: work here, and notice what is printed, opened and connected to."""
        global _SANDBOX
        _SANDBOX = self
        os.chdir(self.here)
        os.environ["TMPDIR"] = str(self.temporary)
        os.environ["HOME"] = str(self.here)
        tempfile.tempdir = None
        self.terminal = os.dup(1)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
        self._out = os.open(self.root / "stdout", flags)
        self._err = os.open(self.root / "stderr", flags)
        sys.stdout.flush()
        os.dup2(self._out, 1)
        os.dup2(self._err, 2)
        if is_quiet:
            sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
            self._alone = alone()  # as the command line is: libraries may print in C as they like
            self._alone.__enter__()
        _quiet()
        self._inotify = _watched((self.outside, self.here, self.root), self.outside)
        sys.addaudithook(self._on_event)

    def clean(self) -> None:
        """Before a worker starts: no case, nothing temporary, nothing said."""
        for folder in (self.case, self.temporary, self.here):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        for name in ("stdout", "stderr", "place"):
            (self.root / name).unlink(missing_ok=True)

    def lay_out(self, files: Mapping[str, bytes]) -> Path:
        """The folder of the case, with its files."""
        for entry in os.scandir(self.case):
            shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else Path(entry).unlink()
        for entry in os.scandir(self.temporary):  # what a case has left there is seen by `listing`
            shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else Path(entry).unlink()
        _write(files, self.case)
        self._notices()
        return self.case

    def listing(self) -> dict[str, tuple[int, int]]:
        """Size and time of what lies in the folder of the case, and of what is temporary.

        Private copies of databases stay as long as their process, so they aren't a case's.
        """
        found = {}
        for top in (self.case, self.temporary):
            for folder, _, names in os.walk(top):
                if Path(folder).name.startswith("ecodetect-"):
                    continue
                for name in names:
                    path = f"{folder}/{name}"
                    state = os.lstat(path)
                    found[path] = (state.st_size, state.st_mtime_ns)
        return found

    def watch(self, *, on: bool) -> None:
        """Whether Python's events are a case's."""
        self._is_watching = on

    def printed(self) -> str:
        """What was printed since it was last asked, on stdout and stderr."""
        return "".join(self.printed_apart())

    def printed_apart(self) -> tuple[str, str]:
        """What was printed since it was last asked: on stdout, on stderr."""
        if sys.stdout is not sys.__stdout__:
            sys.stdout.flush()
            sys.stderr.flush()
        texts = []
        for descriptor in (self._out, self._err):
            size = os.fstat(descriptor).st_size
            texts.append(os.pread(descriptor, size, 0).decode("utf-8", "backslashreplace") if size else "")
            if size:
                os.ftruncate(descriptor, 0)
        return texts[0], texts[1]

    def said(self) -> str:
        """What a dead worker had printed."""
        paths = (self.root / "stdout", self.root / "stderr", self.root / "place")
        return "\n".join(path.read_text("utf-8", "backslashreplace") for path in paths if path.is_file())

    def place_file(self) -> Any:
        """Where faulthandler writes."""
        return (self.root / "place").open("w", encoding="utf-8")

    def last_place(self) -> str:
        """The innermost place of ours that faulthandler wrote down."""
        path = self.root / "place"
        text = path.read_text("utf-8", "backslashreplace") if path.is_file() else ""
        ours = [line for line in text.splitlines() if "/ecodetect/" in line] or text.splitlines()[2:3]
        return ours[0].strip().rpartition("/")[2] if ours else "?"

    def noticed(self) -> tuple[str, str] | None:
        """What happened outside, or on the network, since it was last asked."""
        events = self._notices()
        try:
            connection, _ = self._listener.accept()
            connection.close()
            events.append(("network", "a connection to our server"))
        except OSError:
            pass
        return events[0] if events else None

    def _notices(self) -> list[tuple[str, str]]:
        events, self._events = self._events, []
        if self._inotify < 0:
            return events
        try:
            data = os.read(self._inotify, 65536)
        except BlockingIOError:
            return events
        at = 0
        while at < len(data):
            _, mask, _, length = struct.unpack_from("iIII", data, at)
            name = data[at + 16 : at + 16 + length].rstrip(b"\0").decode("utf-8", "backslashreplace")
            at += 16 + length
            if name not in ("stdout", "stderr", "place"):
                events.append(("outside", f"inotify {mask:#x}: {name}"))
        return events

    def _on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_watching:
            return
        if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
            if event == "socket.connect" and isinstance(arguments[1], (str, bytes)):
                return  # a pair of our own processes
            self._events.append(("network", f"{event} {arguments[1:]}"))
        elif event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or path is None:
                return
            text = os.fsdecode(path)
            is_written = bool(flags & _WRITES)
            if ("/etc/passwd" in text) or (is_written and not self._is_ours(text)):
                self._events.append(("outside", f"open {text}"))
        elif event in _CHANGES and not isinstance(arguments[0], int):
            is_relative = isinstance(arguments[-1], int) and arguments[-1] >= 0  # to an open folder
            if not is_relative and not self._is_ours(os.fsdecode(arguments[0])):
                self._events.append(("outside", f"{event} {arguments[0]}"))
        elif event == "os.system":
            self._events.append(("outside", event))

    def _is_ours(self, text: str) -> bool:
        path = os.path.normpath(Path(text).absolute())
        return path.startswith((str(self.case), str(self.temporary), "/dev/", "/proc/self"))


def _watched(folders: tuple[Path, ...], secret: Path) -> int:
    """A descriptor of inotify: changes in folders, and any opening in one; -1 where there is none."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.inotify_init1(os.O_NONBLOCK)
    except (AttributeError, OSError):
        return -1
    for folder in folders:
        mask = _IN_CREATE | _IN_DELETE | _IN_MOVED | _IN_MODIFY
        if folder == secret:
            mask |= _IN_OPEN | _IN_ACCESS
        libc.inotify_add_watch(descriptor, os.fsencode(folder), mask)
    return int(descriptor)


def _quiet() -> None:
    """As the command line is: libraries' logs and warnings aren't shown."""
    import logging

    from ecodetect_cli.main import quiet_libraries

    quiet_libraries()
    logging.getLogger("ecodetect").setLevel(logging.WARNING)
    warnings.simplefilter("ignore")


def _mapped() -> int:
    """Bytes of address space in use; 0 where that isn't known."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def _forget_peak() -> None:
    """Let the peak of memory start over (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_mb() -> float:
    """The peak of this process's memory since it was forgotten, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

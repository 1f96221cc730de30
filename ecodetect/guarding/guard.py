"""A child process that opens files which could hang a library, crash it, or exhaust the memory.

Libraries that can't be interrupted here (GDAL, HDF5, GEOS, SQLite) can be ended there: `call` runs a function
in the child, within limits on memory and time, and returns its result, or raises its UserError as if it were
called here. A process has one child for all uses; it starts when first needed, and again after it had to be
ended; it ends with its parent. `guarded` is the child's side.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from ecodetect import errors
from ecodetect.errors import UserError
from ecodetect.guarding import guarded
from ecodetect.guarding.guarded import (
    FAULT,
    MEMORY_BYTES,
    MISTAKE,
    NEXT,
    NO_MEMORY,
    PART,
    REQUEST,
    RESULT,
    read_frame,
    write_frame,
)

# Ordinary files are open in less than a second; the slowest sound ones (a text grid or a GRIB of 1 GB, which
# are read through once) take half a minute on an old disk.
TIMEOUT_S = 60.0
_START_S = 120.0  # for Python to start and import, on a machine that is busy
_STEP_S = 0.1  # between two looks at the clock

_timeout_s = TIMEOUT_S
_lock = threading.RLock()
_waiting: list[_Child] = []  # the child, unless it is at work
_alive: set[_Child] = set()  # it, and one that is at work


@contextlib.contextmanager
def timeout(seconds: float | None) -> Iterator[None]:
    """A context in which files may take `seconds` to open, in all threads of the process; None: no change."""
    global _timeout_s
    if seconds is not None and not 0 < seconds < float("inf"):
        raise UserError(f"A time limit is a number of seconds above 0; got {seconds:g}.", parameter="timeout")
    before = _timeout_s
    _timeout_s = before if seconds is None else seconds
    try:
        yield
    finally:
        _timeout_s = before


def limit_s() -> float:
    """The current `timeout`: how long to wait for a file, or for a silent server."""
    return _timeout_s


def call(
    function: str, *given: Any, about: str, error: type[UserError] = UserError, bytes_read: int = 0
) -> Any:
    """Run a function in the child.

    Parameters
    ----------
    function : str
        `module:name`, imported by the child.
    *given :
        Its arguments, JSON-able; its result is too.
    about : str
        The file, for messages.
    error : type of UserError
        The error to raise if the child is ended or crashes.
    bytes_read : int
        The number of bytes that the function normally reads; each 100 MB extend the time limit by itself.

    Raises
    ------
    UserError
        What the function raised, of its own type; or `error` where it takes too long, too much memory, or
        the library crashes. Then the next call has a new child.
    """
    with _lent() as child:
        child.ask(function, given, _limit(bytes_read))
        return child.result(about, error)


def stream(
    function: str, *given: Any, about: str, error: type[UserError] = UserError, bytes_read: int = 0
) -> Generator[bytes, None, None]:
    """As `call`, for a generator of bytes: its parts, one by one; other threads wait until it ends.

    The clock stops while a part is used.
    """
    with _lent() as child:
        child.ask(function, given, _limit(bytes_read))
        while (part := child.part(about, error)) is not None:
            yield part
            child.send(NEXT)


def is_started() -> bool:
    """Whether there is a child at present."""
    return bool(_alive)


def is_inside() -> bool:
    """Whether this process is the child: what it opens is guarded already."""
    return guarded.is_serving


def _limit(bytes_read: int) -> float:
    return _timeout_s * max(1.0, bytes_read / 1e8)


@contextlib.contextmanager
def _lent() -> Iterator[_Child]:
    """The child; it is ended if its work is interrupted by Ctrl-C, a limit or an internal error."""
    with _lock:
        while _waiting and not _waiting[-1].is_alive:
            _waiting.pop().end()
        child = _waiting.pop() if _waiting else _Child()
        try:
            yield child
        finally:
            if child.is_busy or not child.is_alive or _waiting:
                child.end()
            else:
                _waiting.append(child)


@atexit.register
def end() -> None:
    """End all children, busy or not; the next call starts another one."""
    _waiting.clear()
    for child in list(_alive):
        child.end()


def _forget() -> None:
    """In a fork of this process: the child is its parent's, and threads that hold locks aren't there."""
    global _lock
    _lock = threading.RLock()
    for child in _alive:
        child.let_go()
    _inherited.extend(_alive)
    _alive.clear()
    _waiting.clear()


_inherited: list[_Child] = []  # kept, so that their pipes stay open
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def begin(
    program: str, *, lifeline: int | None = None, env: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a child process that runs this program and communicates through pipes, invisibly.

    It has this one's import path, but nothing of the folder in which the user happens to be, and isn't
    reached by Ctrl-C on Windows; elsewhere that is its own affair.
    lifeline : a descriptor that it gets beside.  env : its environment; None: as here.
    Raises UserError where there is no Python for it, and OSError where it can't be started.
    """
    from multiprocessing import spawn

    if not (python := spawn.get_executable()):
        raise UserError(
            "There is no Python to open foreign files with; name it by multiprocessing.set_executable."
        )
    package = str(Path(__file__).parents[2])
    places = [place for place in sys.path if place]
    if package not in places:
        places.insert(0, package)
    options = ["-I", "-X", f"utf8={sys.flags.utf8_mode}", *(["-B"] if sys.dont_write_bytecode else [])]
    more: dict[str, Any] = {}
    if lifeline is not None:
        more["pass_fds"] = (lifeline,)
    if sys.platform == "win32":
        more["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    return subprocess.Popen(
        [os.fsdecode(python), *options, "-c", f"import sys; sys.path[:] = {places!r}; {program}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=env,
        **more,
    )


_GB = f"{MEMORY_BYTES / 2**30:g} GB"


def _late(about: str, limit_s: float) -> str:
    return f"{about} took longer than {limit_s:g} s to open; if it is sound, allow it {5 * limit_s:g} s."


def _large(about: str) -> str:
    return (
        f"{about} takes more than {_GB} of memory to open, so it is damaged or made to do harm; if it is"
        " sound, write it again in another format."
    )


def _fault(content: bytes) -> Exception:
    """What isn't a UserError, by its kind where callers make a sentence of it."""
    said = json.loads(content)
    kinds = {kind.__name__: kind for kind in guarded.FAULTS}
    return kinds.get(said["type"], RuntimeError)(said["text"])


def _crashed(about: str) -> str:
    return (
        f"{about} is damaged: the library that reads it crashed, or wanted more than {_GB} of memory; copy it"
        " again, or write it again in another format."
    )


class _Child:
    """The process, whose output a thread reads, because pipes don't have time limits on all systems."""

    def __init__(self) -> None:
        self.is_busy = False
        self._limit_s, self._used_s = _START_S, 0.0  # starting isn't the file's fault
        self._is_over = False
        ours = theirs = None
        if sys.platform == "linux":
            theirs, ours = os.pipe()
        try:
            self._process = begin(
                f"from ecodetect.guarding.guarded import main; main({theirs})",
                lifeline=theirs,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        except OSError as failure:
            if ours is not None:
                os.close(ours)
            why = failure.strerror or failure
            raise UserError(f"The process that opens foreign files can't be started: {why}.") from failure
        finally:
            if theirs is not None:
                os.close(theirs)
        self._lifeline: int | None = ours
        self._said: queue.SimpleQueue[tuple[bytes, bytes] | None] = queue.SimpleQueue()
        _alive.add(self)
        threading.Thread(target=self._listen, daemon=True, name="ecodetect-guard").start()
        self.is_busy = True
        try:
            if self._heard() is None:
                raise UserError("The process that opens foreign files doesn't start; see `ecodetect doctor`.")
        except BaseException:
            self.end()
            raise
        self.is_busy = False

    def _listen(self) -> None:
        stream: Any = self._process.stdout
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile
            while (frame := read_frame(stream)) is not None:
                self._said.put(frame)
        self._said.put(None)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, function: str, given: tuple[Any, ...], limit_s: float) -> None:
        """Send a request; the clock runs when its modules are imported."""
        try:
            folder: str | None = str(Path.cwd())
        except OSError:
            folder = None  # it has been removed
        request = {"function": function, "given": given, "folder": folder, "limit_s": limit_s}
        self.is_busy = True
        self.send(REQUEST, json.dumps(request).encode())
        self._limit_s, self._used_s = _START_S, 0.0
        begun = self._heard()
        if begun is not None and begun[0] == FAULT:
            raise _fault(begun[1])
        self._limit_s, self._used_s = limit_s, 0.0

    def send(self, kind: bytes, content: bytes = b"") -> None:
        pipe: Any = self._process.stdin
        with contextlib.suppress(OSError):  # it has ended, which reading its output shows
            write_frame(pipe, kind, content)

    def result(self, about: str, error: type[UserError]) -> Any:
        kind, content = self._told(about, error)
        assert kind == RESULT
        return json.loads(content)

    def part(self, about: str, error: type[UserError]) -> bytes | None:
        """The next part; None after the last."""
        kind, content = self._told(about, error)
        return content if kind == PART else None

    def _told(self, about: str, error: type[UserError]) -> tuple[bytes, bytes]:
        """What the child answers; raises what it raised, or says that it has ended."""
        frame = self._heard()
        if frame is None:
            is_late, is_large = self._used_s >= self._limit_s, self._is_large()
            self.end()
            if is_late:
                raise error(_late(about, self._limit_s), parameter="timeout")
            raise error(_large(about) if is_large else _crashed(about))
        kind, content = frame
        if kind in (RESULT, MISTAKE, FAULT):
            self.is_busy = self._heard() is None  # else it is ready again
        if kind == MISTAKE:
            said = json.loads(content)
            known = getattr(errors, said["type"], error)
            raise known(said["text"], parameter=said["parameter"])
        if kind == NO_MEMORY:
            raise error(_large(about))
        if kind == FAULT:
            raise _fault(content)
        return frame

    def _heard(self) -> tuple[bytes, bytes] | None:
        """The next frame; None where the child has ended, or its limits are reached."""
        before = time.monotonic()
        while not self._is_over and self._used_s < self._limit_s and not self._is_large():
            frame: tuple[bytes, bytes] | None = (b"", b"")
            with contextlib.suppress(queue.Empty):
                frame = self._said.get(timeout=_STEP_S)
            now = time.monotonic()
            # Steps, not the clock: a stopped command, or a sleeping machine, uses no time.
            self._used_s += min(now - before, 10 * _STEP_S)
            before = now
            self._is_over = frame is None
            if frame is not None and frame[0]:
                return frame
        return None

    def _is_large(self) -> bool:
        """Whether it exceeds its memory limit, where the system doesn't enforce it."""
        if sys.platform == "linux":
            return False
        import psutil

        try:
            return bool(psutil.Process(self._process.pid).memory_info().rss > MEMORY_BYTES)
        except psutil.Error:
            return False

    def end(self) -> None:
        """End the process, and wait until it has ended."""
        self.is_busy = False
        _alive.discard(self)
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        self.let_go()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def let_go(self) -> None:
        """Close our end of the lifeline."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

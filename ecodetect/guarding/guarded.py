"""The child of `guard`: serves its parent's requests one by one, within limits that it can't lift.

Requests and answers are frames on two pipes: a letter, a length, then JSON or plain bytes; nothing is
unpickled. Output that a library prints is discarded.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import GeneratorType
from typing import Any, BinaryIO

from ecodetect.errors import UserError

MEMORY_BYTES = 2**30  # of what a file makes a library allocate
_OWN_BYTES = 2**28  # Python and the libraries themselves: measured 150 MB
_HEAD = struct.Struct(">cQ")

# Kinds of frames: what the child says. READY: asks for a request. BEGUN: all is imported, the clock runs.
READY, BEGUN, RESULT, PART, MISTAKE, FAULT, NO_MEMORY = b"y", b"b", b"r", b"p", b"m", b"f", b"n"
# And its parent.
REQUEST, NEXT = b"q", b"x"

# Errors that are raised again with their own type, besides UserErrors: faults of a file.
FAULTS = (OSError, RecursionError, UnicodeError, SystemError)

is_serving = False  # whether this process is the child


def write_frame(stream: BinaryIO, kind: bytes, content: bytes = b"") -> None:
    """Send one frame."""
    stream.write(_HEAD.pack(kind, len(content)))
    stream.write(content)
    stream.flush()


def read_frame(stream: BinaryIO) -> tuple[bytes, bytes] | None:
    """Kind and content of the next frame; None where the other side has ended."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    kind, length = _HEAD.unpack(head)
    content = stream.read(length)
    return None if len(content) < length else (kind, content)


def main(lifeline: int | None) -> None:
    """Serve until the parent ends.

    lifeline : a pipe that only the parent's end closes; None where the system can't tell of it.
    """
    global is_serving
    is_serving = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which decides
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for own in (0, 1, 2):
        os.dup2(nothing, own)
    if lifeline is not None:
        _end_with(lifeline)
    _bound_memory()
    while True:
        write_frame(answers, READY)
        frame = read_frame(requests)
        if frame is None:
            return
        _answer(json.loads(frame[1]), requests, answers)


def _end_with(lifeline: int) -> None:
    """Let the system end this process when its parent ends, even inside a library."""
    if sys.platform == "linux":
        import fcntl

        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(
            lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK
        )  # its end comes as SIGIO, which kills
        with contextlib.suppress(BlockingIOError):
            if not os.read(lifeline, 1):
                os._exit(0)  # it had ended before


def _bound_memory() -> None:
    if sys.platform == "win32":
        import msvcrt

        # No dialog about a crashed program that waits for a click.
        msvcrt.SetErrorMode(msvcrt.SEM_FAILCRITICALERRORS | msvcrt.SEM_NOGPFAULTERRORBOX)
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere it is ignored, and the parent watches
        # Arrow's other allocator takes 1 GB of addresses at its start, which counts, and leaves none.
        os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
        most = MEMORY_BYTES + _OWN_BYTES
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _answer(request: dict[str, Any], requests: BinaryIO, answers: BinaryIO) -> None:
    """Do one request and send the result."""
    home = Path(sys.prefix)  # a folder that no user wants to remove
    try:
        module, _, name = request["function"].partition(":")
        function = getattr(importlib.import_module(module), name)
        write_frame(answers, BEGUN)
        _end_within(request["limit_s"])
        if request["folder"] is not None:
            os.chdir(request["folder"])
        found = function(*request["given"])
        if isinstance(found, GeneratorType):
            _send_parts(found, request["limit_s"], requests, answers)
            found = None
        write_frame(answers, RESULT, json.dumps(found).encode())
    except UserError as error:
        said = {"type": type(error).__name__, "text": str(error), "parameter": error.parameter}
        write_frame(answers, MISTAKE, json.dumps(said).encode())
    except MemoryError:
        write_frame(answers, NO_MEMORY)
    except Exception as error:  # noqa: BLE001 - the parent says it
        kind = next((kind for kind in FAULTS if isinstance(error, kind)), None)
        text = str(error) if kind else f"{type(error).__name__}: {error}"
        said = {"type": kind.__name__ if kind else "", "text": text}
        write_frame(answers, FAULT, json.dumps(said).encode())
    finally:
        faulthandler.cancel_dump_traceback_later()
        os.chdir(home)


def _end_within(limit_s: float) -> None:
    """End the process in time, from its own thread, if a library never returns."""
    try:
        faulthandler.dump_traceback_later(2 * limit_s + 60, exit=True, file=2)
    except RuntimeError as error:  # no memory for a thread
        raise MemoryError from error


def _send_parts(parts: Iterator[bytes], limit_s: float, requests: BinaryIO, answers: BinaryIO) -> None:
    """Send the parts of a generator, each on request."""
    for part in parts:
        write_frame(answers, PART, part)
        faulthandler.cancel_dump_traceback_later()
        if read_frame(requests) is None:
            os._exit(0)
        _end_within(limit_s)

"""Rasters by address: a relay process between GDAL and the server, which reports network errors.

GDAL never speaks to a web server itself: it believes what any of them sends, can't be interrupted, and
can't tell a broken network from a broken file. It asks `relay` on loopback, which is started with the first
address. Addresses of cloud storage (`s3://`, …) need GDAL's credentials and stay with it.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import http.client
import itertools
import json
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ecodetect.errors import NetworkError, RasterError
from ecodetect.guarding import guard
from ecodetect.web.connection import Limits

_Found = TypeVar("_Found")
RELAYED = "/vsicurl/http://127.0.0.1:"  # how names begin of what GDAL asks the relay for
_LOOK_S = 0.1  # how often a waiting main thread lets Ctrl-C through
limits = Limits()


class Remote:
    """A file on a web server, as the relay has it; `close` it.

    shown : its address, as the user wrote it.
    name : as GDAL takes it.
    head : its first bytes.
    state : by what the server knows it, which changes when it does; "" if it says nothing but the length.
    """

    def __init__(self, address: str, shown: str) -> None:
        """Raises NetworkError where there is nothing to be had."""
        self.shown = shown
        self._relay = _running()
        self._number = str(next(_numbers))
        said = self._relay.told(
            self._number,
            "open",
            {"address": address, "limits": asdict(patient()), "headers": _stated_headers()},
        )
        if said["fault"] is not None:
            self.close()
            raise _error(shown, said["fault"], is_opening=True)
        facts = said["facts"]
        self.head: bytes = base64.b64decode(said["head"])
        self.state = json.dumps([facts["length"], facts["etag"], facts["modified"]])
        name = urlsplit(address).path.rpartition("/")[2] or "raster"
        safe = "".join(char if char.isascii() and (char.isalnum() or char in "-_.") else "_" for char in name)
        self.name = f"/vsicurl/{self._relay.address}{self._number}/file/{safe[-80:]}"

    def fault(self) -> RasterError | None:
        """What went wrong on the network since it was opened; None: nothing."""
        said = self._relay.told(self._number, "fault", {})
        return None if said["fault"] is None else _error(self.shown, said["fault"])

    def check_unchanged(self) -> None:
        """Raise RasterError where the server has another file at the address by now; NetworkError where it
        doesn't answer.
        """
        said = self._relay.told(self._number, "look", {})
        if said["fault"] is not None:
            raise _error(self.shown, said["fault"])

    def give_up(self) -> None:
        """End all waiting for the server; nothing can be read afterwards."""
        with contextlib.suppress(NetworkError):
            self._relay.told(self._number, "give-up", {})

    def close(self) -> None:
        with contextlib.suppress(NetworkError):
            self._relay.told(self._number, "close", {})


def patient() -> Limits:
    """The limits of waiting, as far as the user has patience: twice in vain is what `guard.timeout` says."""
    return replace(limits, patience_s=limits.patience_s * guard.limit_s() / guard.TIMEOUT_S)


def waited(remote: Remote | None, call: Callable[[], _Found]) -> _Found:
    """What `call` returns; if it waits for a server, so that Ctrl-C is heard meanwhile.

    GDAL doesn't return to Python before it has an answer, and Python hears nothing before that.
    """
    if remote is None or threading.current_thread() is not threading.main_thread():
        return call()
    found: list[_Found] = []
    failed: list[BaseException] = []
    # Not Thread.join: Python 3.11, interrupted there, takes the thread for ended; we'd close what it reads.
    is_done = threading.Event()

    def work() -> None:
        try:
            found.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            failed.append(error)
        finally:
            is_done.set()

    threading.Thread(target=work, name="network", daemon=True).start()
    try:
        while not is_done.wait(_LOOK_S):
            pass
    except BaseException:
        remote.give_up()
        while not is_done.is_set():  # soon, whatever else is pressed
            with contextlib.suppress(KeyboardInterrupt):
                is_done.wait(_LOOK_S)
        raise
    if failed:
        raise failed[0]
    return found[0]


def _error(shown: str, fault: dict[str, str], *, is_opening: bool = False) -> RasterError:
    kind, text = fault["kind"], fault["text"]
    if kind == "changed":
        return RasterError(
            f"{shown} has changed on its server while it was read: {text}; run the same command again to"
            " start over with what is there now."
        )
    what = "opened" if is_opening else "read"
    remedy = (
        "check the address and the connection"
        if kind == "address"
        else "this is the network's fault, not the file's: run the same command again, or download the file"
    )
    return NetworkError(f"{shown} can't be {what} ({text}); {remedy}.")


def _stated_headers() -> dict[str, str]:
    """What GDAL's own variable says is to be sent with each request: `Name: value,Name: value`."""
    lines = os.environ.get("GDAL_HTTP_HEADERS", "").split(",")
    pairs = (line.partition(":") for line in lines if line.isprintable())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon and name.strip()}


# -- the process ---------------------------------------------------------------------------------------------


class _Relay:
    """The relay's process.  address : where GDAL asks it; only who knows it gets an answer."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        try:
            self.process = guard.begin("from ecodetect.web.relay import main; main()")
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            secret = secrets.token_urlsafe(24)
            told = json.dumps({"secret": secret, "certificates": _certificates()})
            self.process.stdin.write(told.encode() + b"\n")
            self.process.stdin.flush()
            self._port = int(self.process.stdout.readline())
        except (OSError, ValueError) as error:
            raise NetworkError("The process that connects to web servers can't be started.") from error
        self._path = f"/{secret}/"
        self.address = f"http://127.0.0.1:{self._port}{self._path}"

    @property
    def is_alive(self) -> bool:
        return self.owner == os.getpid() and self.process.poll() is None

    def told(self, number: str, verb: str, content: dict[str, Any]) -> dict[str, Any]:
        """What it answers about a file.  Raises NetworkError where it doesn't."""
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self._port)
            with contextlib.closing(connection):
                connection.request(
                    "POST", f"{self._path}{number}/{verb.replace(' ', '-')}", json.dumps(content)
                )
                found: dict[str, Any] = json.loads(connection.getresponse().read())
                return found
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NetworkError(
                "The process that connects to web servers has ended; run the same command again."
            ) from error

    def end(self) -> None:
        if self.owner == os.getpid():
            with contextlib.suppress(OSError):
                self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()


_numbers = itertools.count(1)
_relay: _Relay | None = None
_lock = threading.Lock()


def _running() -> _Relay:
    """The relay of this process, started when it is first needed."""
    global _relay
    with _lock:
        if _relay is None or not _relay.is_alive:
            _relay = _Relay()
            atexit.register(_relay.end)
        return _relay


def _certificates() -> str | None:
    """The authorities that rasterio's own network trusts, beside those of the system."""
    stated = os.environ.get("CURL_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
    if stated:
        return stated
    try:
        import certifi
    except ImportError:
        return None
    return certifi.where()

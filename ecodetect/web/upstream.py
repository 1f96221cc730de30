"""Parts of files by address, from servers that may be slow, break off, change files or send wrong bytes.

An `Upstream` is one file. It requests only the needed bytes, with time limits and retries. Each response is
checked against the first one (entity tag, date, length) and against the requested range, so that versions of
a file are never mixed and other bytes are never used. A permanent failure is a `Fault`.

Nothing but the standard library: `relay`, whose process this runs in, is to start at once.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import re
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urljoin

from ecodetect.web.connection import Fault, Limits, Line, Place, from_netrc, watch

HEAD_BYTES = 16384  # what GDAL reads first, and what identifies the format
_MOST_AT_ONCE = 8  # connections to servers
_MOST_REDIRECTS = 5
MOST_WHOLE = 2**28  # bytes of a file whose server gives it only as a whole
_PIECE = 65536
_WORTH = 65536  # bytes after which a try counts as a success, which resets the number of tries
_BUSY = (408, 425, 429, 500, 502, 503, 504)  # a server that may answer later


_RANGE = re.compile(r"\s*bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\s*")


@dataclass(frozen=True)
class Facts:
    """What a server states about a file, to recognise the same version."""

    length: int
    etag: str | None
    modified: str | None

    def difference(self, other: Facts) -> str | None:
        """The difference in what both state; None: there is none."""
        if self.etag and other.etag and self.etag != other.etag:
            return f"its ETag was {self.etag[:40]} and is {other.etag[:40]}"
        if self.modified and other.modified and self.modified != other.modified:
            return f"it was of {self.modified[:40]} and is of {other.modified[:40]}"
        if self.length != other.length:
            return f"it had {self.length:,} bytes and has {other.length:,}"
        return None


class _Again(Exception):
    """The request failed in a way that may not last.

    pause_s : that the server asks for.  is_silent : nothing came in time.
    """

    def __init__(self, text: str, *, pause_s: float | None = None, is_silent: bool = False) -> None:
        super().__init__(text)
        self.pause_s, self.is_silent = pause_s, is_silent


class _NoRanges(Exception):
    """The server sends whole files only."""


_at_once = threading.BoundedSemaphore(_MOST_AT_ONCE)


class Upstream:
    """A file on a server.

    facts : known after `begin`.  fault : why it can't be had any more; it stays.
    """

    def __init__(self, address: str, limits: Limits, headers: dict[str, str]) -> None:
        self._limits = limits
        self._origin = Place.of(address)
        self._headers = {**from_netrc(self._origin), **headers, **self._origin.authorisation}
        self._at = self._origin  # the address after redirects
        self.facts: Facts | None = None
        self.fault: Fault | None = None
        self.head = b""
        self._whole: BinaryIO | None = None
        self._gives_ranges = False
        self._idle: list[Line] = []
        self._busy: set[Line] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    # -- what is asked of it ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Fetch the beginning, and with it the facts.  Raises Fault."""
        try:
            self.head = b"".join(self._parts(0, HEAD_BYTES - 1))
        except _NoRanges:
            self._fetch_whole()
            self.head = self._from_whole(0, HEAD_BYTES - 1)
        if self.facts is None or not self.facts.length:
            raise Fault("address", "it is empty (0 bytes)")

    def fetch(self, first: int, last: int) -> Generator[bytes, None, None]:
        """The bytes from first to last, piece by piece.  Raises Fault, and keeps it."""
        if self.fault is not None:
            raise self.fault
        try:
            if last < len(self.head):
                yield self.head[first : last + 1]
            elif self._whole is not None:
                for start in range(first, last + 1, _PIECE):
                    yield self._from_whole(start, min(last, start + _PIECE - 1))
            else:
                yield from self._parts(first, last)
        except _NoRanges:
            self.fault = Fault("network", "the server sent the whole file instead of the part asked for")
            raise self.fault from None
        except Fault as fault:
            self.fault = fault
            raise

    def look(self) -> None:
        """Ask whether the file is still what it was.  Raises Fault."""
        if self.fault is not None:
            raise self.fault
        try:
            with contextlib.suppress(_NoRanges):
                for _ in self._parts(0, 0):
                    pass
        except Fault as fault:
            self.fault = fault
            raise

    def give_up(self) -> None:
        """End all waiting."""
        self.fault = self.fault or Fault("network", "it was stopped")
        self._stopped.set()
        with self._lock:
            for line in self._busy:
                line.cut()

    def close(self) -> None:
        self.give_up()
        with self._lock:
            for line in self._idle:
                line.close()
            self._idle = []
        if self._whole is not None:
            self._whole.close()

    # -- again and again -------------------------------------------------------------------------------------

    def _parts(self, first: int, last: int) -> Generator[bytes, None, None]:
        """As `fetch`, from the server; what came before a connection broke isn't asked for again."""
        at, tries, silent, counted_from = first, 0, 0, first
        while at <= last:
            try:
                for piece in self._answer(at, last):
                    at += len(piece)
                    yield piece
                if self.facts is not None:
                    last = min(last, self.facts.length - 1)
                if at > last:
                    return
                raise _Again("the server sent less than was asked for")
            except _Again as why:
                if at - counted_from >= _WORTH:
                    tries, silent = 0, 0
                counted_from = at
                tries, silent = tries + 1, silent + why.is_silent
                self._check_stopped()
                pause = why.pause_s or 0.0
                if pause > self._limits.most_pause_s:
                    raise Fault("network", f"{why} and asks to wait {pause:.0f} s") from None
                if tries >= self._limits.tries or silent >= self._limits.silent_tries:
                    raise Fault("network", f"{why}, asked {tries} times") from None
                pause = max(pause, self._limits.pause_s * 2 ** (tries - 1))
                self._stopped.wait(pause)
                self._check_stopped()

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise self.fault or Fault("network", "it was stopped")

    def _answer(self, first: int, last: int) -> Generator[bytes, None, None]:
        """One request's bytes. Raises _Again, _NoRanges, Fault."""
        with _at_once:
            self._check_stopped()
            line, response = self._asked(first, last)
            is_done = False
            try:
                with watch.on(line):
                    expected = self._checked(response, first, last)
                    while expected > 0:
                        piece = response.read1(min(_PIECE, expected))
                        if not piece:
                            raise _Again("the server ended its answer early")
                        line.came(len(piece))
                        expected -= len(piece)
                        yield piece
                is_done = True
            except (OSError, http.client.HTTPException) as error:
                raise self._again(line, error) from None
            except _Again as error:
                raise self._again(line, error) from None
            finally:
                with self._lock:
                    self._busy.discard(line)
                if is_done and response.length == 0 and not response.will_close and not line.is_cut:
                    response.read()  # says that it is read to its end: the connection can be used again
                    with self._lock:
                        self._idle.append(line)
                else:
                    line.close()

    def _again(self, line: Line, error: Exception) -> _Again:
        if line.is_late:
            return _Again(
                f"the server stopped answering: less than {self._limits.least_bytes:,} bytes came in"
                f" {self._limits.patience_s:g} s",
                is_silent=True,
            )
        if isinstance(error, _Again):
            return error
        if isinstance(error, TimeoutError):
            return _Again("the server doesn't answer", is_silent=True)
        if isinstance(error, http.client.IncompleteRead):
            return _Again("the server ended its answer early")
        if isinstance(error, http.client.RemoteDisconnected | ConnectionError | ssl.SSLEOFError):
            return _Again("the connection was dropped")
        if isinstance(error, http.client.HTTPException):
            return _Again("the server's answer isn't HTTP")
        return _Again(f"the connection failed ({_reason(error)})")

    def _asked(self, first: int, last: int) -> tuple[Line, http.client.HTTPResponse]:
        """A connection and the response on it, after redirects."""
        headers = {"Range": f"bytes={first}-{last}", "Accept-Encoding": "identity", "User-Agent": "ecodetect"}
        place, is_known = self._at, self._at is not self._origin
        for _ in range(_MOST_REDIRECTS + 1):
            own = self._headers if (place.host, place.port) == (self._origin.host, self._origin.port) else {}
            line, response = self._sent(place, {**headers, **own})
            if response.status in (301, 302, 303, 307, 308):
                target = response.headers.get("Location", "")
                self._drop(line)
                place = _redirected(place, target)
                continue
            if response.status in (401, 403, 404, 410) and is_known:  # where redirects led once
                self._drop(line)
                place, is_known = self._origin, False
                continue
            self._at = place
            return line, response
        raise Fault("address", f"the server redirects more than {_MOST_REDIRECTS} times")

    def _drop(self, line: Line) -> None:
        with self._lock:
            self._busy.discard(line)
        line.close()

    def _sent(self, place: Place, headers: dict[str, str]) -> tuple[Line, http.client.HTTPResponse]:
        while True:
            with self._lock:
                kept = [line for line in self._idle if line.place is place]
                line = kept[-1] if kept else Line(place, self._limits, origin=self._origin)
                self._idle = [other for other in self._idle if other is not line]
                self._busy.add(line)
            was_used = line.is_used
            try:
                with watch.on(line):
                    return line, line.ask(headers)
            except Fault:
                self._drop(line)
                raise
            except socket.gaierror as error:
                self._drop(line)
                if error.errno == getattr(socket, "EAI_AGAIN", None):
                    raise _Again(f"there is no way to the server {place.host} now") from None
                raise Fault("address", f"there is no server {place.host}") from None
            except ssl.SSLCertVerificationError as error:
                self._drop(line)
                said = error.verify_message or "it can't be verified"
                raise Fault("address", f"the server's certificate isn't valid: {said}") from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._drop(line)
                self._check_stopped()
                if was_used and not line.is_late:
                    continue  # a server may close a connection that was kept
                if isinstance(error, ConnectionRefusedError):
                    raise _Again(f"the server {place.host} refuses connections") from None
                raise self._again(line, error) from None

    # -- what the server says --------------------------------------------------------------------------------

    def _checked(self, response: http.client.HTTPResponse, first: int, last: int) -> int:
        """How many bytes of an answer are what was asked for. Raises _Again, _NoRanges, Fault."""
        status, headers = response.status, response.headers
        if status in _BUSY:
            said = http.client.responses.get(status, "")
            raise _Again(f"the server answers {status} {said}", pause_s=_pause(headers.get("Retry-After")))
        if status == 416 and self.facts is None:
            raise Fault("address", "it is empty (0 bytes)")
        if status == 416:
            raise Fault("changed", "it is shorter than it was")
        if status not in (200, 206):
            said = http.client.responses.get(status, "")
            raise Fault("address", f"HTTP {status} {said}".rstrip())
        coding = headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            raise Fault("network", "the server sends it packed, although the plain file is asked for")
        if status == 200:
            return self._checked_whole(response, last)
        parts = re.fullmatch(
            r"\s*bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\s*", headers.get("Content-Range", "")
        )
        if parts is None:
            raise _Again("the server sends a part without saying which")
        total = int(parts[3]) if parts[3] != "*" else (self.facts.length if self.facts else -1)
        if total < 0:
            raise Fault("network", "the server doesn't say how long the file is")
        self._compare(Facts(total, _etag(headers.get("ETag")), headers.get("Last-Modified")))
        begins, ends = int(parts[1]), int(parts[2])
        if begins != first or not begins <= ends < total:
            raise _Again("the server sends other bytes than were asked for")
        self._gives_ranges = True
        count = min(ends, last) - first + 1
        stated = response.length
        if stated is not None and stated < count:
            raise _Again("the server ended its answer early")
        return count

    def _checked_whole(self, response: http.client.HTTPResponse, last: int) -> int:
        length = response.length
        if length is not None:
            self._compare(
                Facts(length, _etag(response.headers.get("ETag")), response.headers.get("Last-Modified"))
            )
        if self._gives_ranges:
            raise _Again("the server sent the whole file instead of the part asked for")
        raise _NoRanges

    def _compare(self, found: Facts) -> None:
        if self.facts is None:
            self.facts = found
            return
        difference = self.facts.difference(found)
        if difference is not None:
            raise Fault("changed", difference)

    # -- servers that know no ranges -------------------------------------------------------------------------

    def _fetch_whole(self) -> None:
        """Fetch a file that isn't too large into a temporary one."""
        stated = None if self.facts is None else self.facts.length
        if stated is not None and stated > MOST_WHOLE:
            raise Fault(
                "network",
                f"its server sends whole files only, and this one has {stated / 1e6:,.0f} MB",
            )
        tries = silent = 0
        while True:
            # SIM115: it is open as long as this.
            self._whole = tempfile.TemporaryFile(prefix="ecodetect-")  # noqa: SIM115
            try:
                self._take_whole(self._whole)
                return
            except _Again as why:
                self._whole.close()
                self._whole = None
                tries, silent = tries + 1, silent + why.is_silent
                if tries >= self._limits.tries or silent >= self._limits.silent_tries:
                    raise Fault("network", f"{why}, asked {tries} times") from None
                self._stopped.wait(max(why.pause_s or 0.0, self._limits.pause_s * 2 ** (tries - 1)))
                self._check_stopped()

    def _take_whole(self, file: BinaryIO) -> None:
        with _at_once:
            line, response = self._asked(0, MOST_WHOLE)
            try:
                with watch.on(line):
                    if response.status != 200:
                        self._checked(response, 0, MOST_WHOLE)
                        raise _Again("the server answers now with a part, now with the whole file")
                    with contextlib.suppress(_NoRanges):
                        self._checked(response, 0, MOST_WHOLE)
                    count = 0
                    while piece := response.read1(_PIECE):
                        line.came(len(piece))
                        count += len(piece)
                        if count > MOST_WHOLE:
                            raise Fault(
                                "network", f"more than {MOST_WHOLE // 2**20} MB came of it, and no end"
                            )
                        file.write(piece)
            except (OSError, http.client.HTTPException, _Again) as error:
                raise self._again(line, error) from None
            finally:
                self._drop(line)
        if self.facts is None:
            self.facts = Facts(count, None, None)
        if count != self.facts.length:
            raise _Again("the server ended its answer early")

    def _from_whole(self, first: int, last: int) -> bytes:
        assert self._whole is not None
        with self._lock:
            self._whole.seek(first)
            return self._whole.read(last - first + 1)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or getattr(error, "reason", None) or type(error).__name__
    return str(text)[:80]


def _etag(text: str | None) -> str | None:
    """Weak or not: a server in between may have made it weak."""
    return None if not text else text.strip().removeprefix("W/")


def _pause(text: str | None) -> float | None:
    """The seconds that a server asks to wait."""
    if not text:
        return None
    if text.strip().isdigit():
        return float(text.strip()[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _redirected(place: Place, target: str) -> Place:
    try:
        address = urljoin(f"{place.scheme}://{place.netloc}{place.target}", target)
        found = Place.of(address)
    except (Fault, ValueError):
        raise Fault("address", "the server sends on to something that isn't a web address") from None
    if place.scheme == "https" and found.scheme == "http":
        raise Fault("address", "the server sends on from https to http, where anyone can change the bytes")
    return found

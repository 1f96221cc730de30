"""One connection to a web server, with time limits, and to private networks only if the user names one.

`upstream` sends the requests.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import http.client
import ipaddress
import netrc
import os
import re
import select
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

_LOOK_S = 0.05  # how often late connections are looked for


@dataclass(frozen=True)
class Limits:
    """Time limits for servers.

    connect_s : for a connection.
    patience_s : in each such time at least `least_bytes` or the whole answer must come.
    tries : of one request, in all.  silent_tries : as many where nothing came in time.
    pause_s : before the second try; doubled before each further one.
    most_pause_s : that a server may ask for (Retry-After).
    """

    connect_s: float = 20.0
    patience_s: float = 30.0
    least_bytes: int = 4096
    tries: int = 6
    silent_tries: int = 2
    pause_s: float = 0.5
    most_pause_s: float = 60.0


@dataclass(eq=False)
class Fault(Exception):
    """Why a file can't be read.

    kind : "address" (the server has no such file, or doesn't give it), "network" (it doesn't answer, or not
        as it should), "changed" (it isn't the file it was).
    text : says it, without a subject.
    """

    kind: str
    text: str


class _Watch:
    """Ends connections on which too little has come; their own time limit starts over with each byte."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: set[Line] = set()
        self._is_looking = False

    @contextlib.contextmanager
    def on(self, line: Line) -> Iterator[None]:
        line.begin()
        with self._lock:
            self._watched.add(line)
            if not self._is_looking:
                threading.Thread(target=self._look, daemon=True).start()
                self._is_looking = True
        try:
            yield
        finally:
            with self._lock:
                self._watched.discard(line)

    def _look(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            now = time.monotonic()
            with self._lock:
                for line in self._watched:
                    line.look(now)


class Line:
    """One connection to a server, or to a proxy that leads to it."""

    def __init__(self, place: Place, limits: Limits, *, origin: Place) -> None:
        self.place, self._limits, self._origin = place, limits, origin
        self._since, self._came = time.monotonic(), 0
        self._held: socket.socket | None = None
        self.is_late = self.is_cut = False
        self.is_used = False
        proxy = _proxy_for(place)
        self._is_through_proxy = proxy is not None
        host, port = (place.host, place.port) if proxy is None else (proxy.host, proxy.port)
        self._http: http.client.HTTPConnection
        if place.scheme == "https":
            self._http = http.client.HTTPSConnection(host, port, timeout=limits.connect_s, context=_tls())
            if proxy is not None:
                self._http.set_tunnel(place.host, place.port, headers=proxy.authorisation)
        else:
            self._http = http.client.HTTPConnection(host, port, timeout=limits.connect_s)
        self._proxy = proxy
        # http.client connects by this function; ours uses an address that has been checked.
        self._http._create_connection = self._connected  # type: ignore[attr-defined]

    def begin(self) -> None:
        self._since, self._came = time.monotonic(), 0

    def look(self, now: float) -> None:
        """End the connection if too little has come."""
        if now - self._since < self._limits.patience_s:
            return
        if self._came < self._limits.least_bytes:
            self.is_late = True
            self.cut()
        else:
            self._since, self._came = now, 0

    def came(self, count: int) -> None:
        self._came += count

    def cut(self) -> None:
        """End the wait of another thread."""
        self.is_cut = True
        if self._held is not None:
            with contextlib.suppress(OSError):
                self._held.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._http.close()
        if self._held is not None:
            self._held.close()

    def _connected(self, place: tuple[str, int], *more: Any) -> socket.socket:
        """A connection to one of the addresses of a host."""
        found = socket.getaddrinfo(*place, type=socket.SOCK_STREAM)
        if not self._is_through_proxy and not _is_alike(self.place, self._origin):
            for each in found:
                if not ipaddress.ip_address(str(each[4][0]).partition("%")[0]).is_global:
                    raise Fault(
                        "address",
                        f"the server sends on to {self.place.host}, which is inside a private network; give"
                        " that address itself if you trust it",
                    )
        last: OSError | None = None
        for family, kind, protocol, _, where in found[:4]:
            made = socket.socket(family, kind, protocol)
            try:
                self._connect(made, where)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                made.settimeout(self._limits.connect_s)  # for the handshake of TLS; the watch is over it, too
                self._held = made.dup()  # TLS takes the other over
                return made
            except OSError as error:
                made.close()
                last = error
        raise last or OSError("no address")

    def _connect(self, made: socket.socket, where: Any) -> None:
        """Connect a socket, unless it is cut in between."""
        made.setblocking(False)
        code = made.connect_ex(where)
        until = time.monotonic() + self._limits.connect_s
        while code in (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY):
            if self.is_cut or time.monotonic() > until:
                raise TimeoutError
            if select.select([], [made], [made], _LOOK_S)[1:] != ([], []):
                code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    def ask(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        target = self.place.target
        if self._is_through_proxy and self.place.scheme == "http":
            assert self._proxy is not None
            target = f"http://{self.place.netloc}{target}"
            headers = {**headers, **self._proxy.authorisation}
        self.is_used = True
        self._http.request("GET", target, headers={"Host": self.place.netloc, **headers})
        if self._http.sock is not None:
            self._http.sock.settimeout(self._limits.patience_s + 1)  # the watch is first
        return self._http.getresponse()


@dataclass(frozen=True)
class Place:
    """An address, taken apart."""

    scheme: str
    host: str
    port: int
    target: str
    authorisation: dict[str, str]

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"

    @classmethod
    def of(cls, address: str) -> Place:
        """Raises Fault unless it is the address of a web server."""
        try:
            parts = urlsplit(address)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise Fault("address", "the address is not well-formed") from error
        scheme = parts.scheme.lower()
        if scheme not in ("http", "https") or not host or re.search(r"[\x00-\x20\x7f]", address):
            raise Fault("address", "the address is not well-formed")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        target = "".join(char if char.isascii() else _percent(char) for char in target)
        try:
            host = host if host.isascii() else host.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise Fault("address", "the address is not well-formed") from error
        user = {}
        if parts.username is not None:
            both = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            user = {"Authorization": f"Basic {base64.b64encode(both.encode()).decode()}"}
        return cls(scheme, host, port or (443 if scheme == "https" else 80), target, user)


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "replace"))


def _is_alike(place: Place, origin: Place) -> bool:
    """Whether an address is the server that the user named, or the same server over https."""
    if place.host != origin.host:
        return False
    is_upgrade = (origin.scheme, origin.port, place.scheme, place.port) == ("http", 80, "https", 443)
    return (place.scheme, place.port) == (origin.scheme, origin.port) or is_upgrade


@dataclass(frozen=True)
class _Proxy:
    host: str
    port: int
    authorisation: dict[str, str]


def _proxy_for(place: Place) -> _Proxy | None:
    """The proxy that the environment names for an address."""
    given = urllib.request.getproxies().get(place.scheme)
    if not given or urllib.request.proxy_bypass(f"{place.host}:{place.port}"):
        return None
    try:
        found = Place.of(given if "://" in given else f"http://{given}")
    except Fault:
        return None
    named = {"Proxy-" + name: value for name, value in found.authorisation.items()}
    return _Proxy(found.host, found.port, named)


def trust(certificates: str | None) -> None:
    """Trust the authorities in a file, too."""
    global _certificates
    _certificates = certificates


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    if _certificates:
        context.load_verify_locations(_certificates)
    return context


_certificates: str | None = None
watch = _Watch()


def from_netrc(place: Place) -> dict[str, str]:
    """Name and password for a server, from the user's netrc file."""
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(place.host)
    except (OSError, netrc.NetrcParseError, UnicodeError):
        return {}
    if found is None:
        return {}
    both = f"{found[0]}:{found[2]}".encode()
    return {"Authorization": f"Basic {base64.b64encode(both).decode()}"}

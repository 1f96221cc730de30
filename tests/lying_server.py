"""A web server that behaves as it is told: late, broken, forgetful, or a liar; a connection a request."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# Of nobody, for "localhost", valid until 2081.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjOoXgIhZRRaei27F
BL+bHD3ECavoWxYFuiy6ry+kSouhRANCAAS3nksJ9A4HSI55b6URZH5mBOfNjfiE
DyP97hxDD/+EQBl5UqB3oKvv5bGxc4HpCFl5fu1gI88AhMXPP8jsSiHi
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUAJgR5P9cOuN3Y/aqBlMlGnKN1PgwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEzMDA3MTAyNVoYDzIwODEwOTAy
MDcxMDI1WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAS3nksJ9A4HSI55b6URZH5mBOfNjfiEDyP97hxDD/+EQBl5UqB3oKvv
5bGxc4HpCFl5fu1gI88AhMXPP8jsSiHio28wbTAdBgNVHQ4EFgQUncqHryfZF/w2
h6muWlWYts26bWgwHwYDVR0jBBgwFoAUncqHryfZF/w2h6muWlWYts26bWgwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIgON9mDxBITaa+3ukKfDC0N8/DnIxavnfMg/3KCIGiCQkCIQCc
Cv1/T/uSmcZTBvm40qWZi+HZPU6RMfEizoJgfLOUWA==
-----END CERTIFICATE-----
"""


@dataclass
class Asked:
    """A request: what it names, the bytes it asks for, and the how manyth it is, from 1."""

    path: str
    first: int
    last: int
    number: int
    headers: dict[str, str]


Answer = Callable[[socket.socket, Asked, bytes], None]


def honest(
    line: socket.socket,
    asked: Asked,
    content: bytes,
    *,
    etag: str = '"1"',
    status: str = "206 Partial Content",
) -> None:
    """The bytes asked for."""
    last = min(asked.last, len(content) - 1)
    body = content[asked.first : last + 1]
    line.sendall(
        f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nETag: {etag}\r\n"
        f"Content-Range: bytes {asked.first}-{last}/{len(content)}\r\nConnection: close\r\n\r\n".encode()
        + body
    )


def saying(status: str, more: str = "") -> Answer:
    """Nothing but a status line and headers."""

    def answer(line: socket.socket, asked: Asked, content: bytes) -> None:
        line.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n{more}Connection: close\r\n\r\n".encode())

    return answer


def at_first(count: int, lie: Answer, then: Answer = honest) -> Answer:
    """A lie to the first so many requests, the truth afterwards."""
    return lambda line, asked, content: (lie if asked.number <= count else then)(line, asked, content)


@dataclass
class LyingServer:
    """content : of every file.  answer : what is done with a request.  asked : all requests so far."""

    content: bytes
    answer: Answer = honest
    asked: list[Asked] = field(default_factory=list)
    port: int = 0
    tls: ssl.SSLContext | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/ortho.tif"

    def serve(self, listening: socket.socket) -> None:
        while True:
            try:
                line, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(line,), daemon=True).start()

    def _talk(self, line: socket.socket) -> None:
        if self.tls is not None:
            try:
                line = self.tls.wrap_socket(line, server_side=True)
            except OSError:
                return  # the client doesn't trust it
        with line:
            try:
                head = b""
                while b"\r\n\r\n" not in head:
                    if not (got := line.recv(4096)):
                        return
                    head += got
                first_line, *lines = head.decode("latin-1").split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (each.partition(":") for each in lines)}
                parts = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
                first, last = (int(parts[1]), int(parts[2])) if parts else (0, len(self.content) - 1)
                asked = Asked(first_line.split(" ")[1], first, last, len(self.asked) + 1, headers)
                self.asked.append(asked)
                self.answer(line, asked, self.content)
            except OSError:
                pass  # the client has had enough


@contextmanager
def serving(
    content: bytes, answer: Answer = honest, tls: ssl.SSLContext | None = None
) -> Iterator[LyingServer]:
    """A server that serves while it lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = LyingServer(content, answer, port=listening.getsockname()[1], tls=tls)
        threading.Thread(target=server.serve, args=(listening,), daemon=True).start()
        yield server

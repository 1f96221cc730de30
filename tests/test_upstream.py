"""Servers that are slow, break off, change their mind or lie: the right bytes or one sentence, in time."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lying_server import CERTIFICATE, Answer, Asked, LyingServer, at_first, honest, saying, serving

from ecodetect.web import connection as web_connection
from ecodetect.web.connection import Fault, Limits
from ecodetect.web.upstream import Upstream

CONTENT = bytes(range(256)) * 1024  # 256 kB
QUICK = Limits(connect_s=1, patience_s=0.3, least_bytes=64, tries=4, pause_s=0.01, most_pause_s=1)
PART = (100_000, 130_000)


def fetched(server: LyingServer, first: int = PART[0], last: int = PART[1]) -> bytes:
    upstream = Upstream(server.address, QUICK, {})
    try:
        upstream.begin()
        return b"".join(upstream.fetch(first, last))
    finally:
        upstream.close()


def drop(line: socket.socket, asked: Asked, content: bytes) -> None:
    """Nothing, and a reset."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def be_short(line: socket.socket, asked: Asked, content: bytes) -> None:
    """Fewer bytes than announced."""
    body = content[asked.first : asked.last + 1]
    line.sendall(
        f"HTTP/1.1 206 P\r\nContent-Length: {len(body)}\r\n"
        f"Content-Range: bytes {asked.first}-{asked.last}/{len(content)}\r\n\r\n".encode()
        + body[:-100]
    )


def begin_to_say(line: socket.socket, asked: Asked, content: bytes) -> None:
    line.sendall(b"HTTP/1.1 206 Partial Content\r\nContent-Le")


def say_a_shorter_length(line: socket.socket, asked: Asked, content: bytes) -> None:
    line.sendall(
        f"HTTP/1.1 206 P\r\nContent-Length: 7\r\n"
        f"Content-Range: bytes {asked.first}-{asked.last}/{len(content)}\r\n\r\n1234567".encode()
    )


def send_another_range(line: socket.socket, asked: Asked, content: bytes) -> None:
    moved = Asked(asked.path, asked.first + 1, asked.last + 1, asked.number, asked.headers)
    honest(line, moved, content)


def send_an_unnamed_range(line: socket.socket, asked: Asked, content: bytes) -> None:
    body = content[asked.first : asked.last + 1]
    line.sendall(f"HTTP/1.1 206 P\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def send_all(line: socket.socket, asked: Asked, content: bytes) -> None:
    line.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)


def after_the_head(answer: Answer, count: int) -> Answer:
    """The beginning of the file, then the answer to `count` requests."""
    return at_first(1, honest, at_first(1 + count, answer))


MENDED: list[Callable[..., None]] = [
    drop, be_short, begin_to_say, say_a_shorter_length, send_another_range, send_an_unnamed_range,
    saying("429 Slow down", "Retry-After: 0\r\n"), saying("500 No"), saying("503 No"), saying("504 No"),
    saying("408 No"), send_all,
]  # fmt: skip


@pytest.mark.parametrize("lie", MENDED, ids=lambda lie: lie.__name__)
def test_what_may_pass_is_asked_again(lie: Answer) -> None:
    with serving(CONTENT, after_the_head(lie, 2)) as server:
        assert fetched(server) == CONTENT[PART[0] : PART[1] + 1]
    assert len(server.asked) <= 5


@pytest.mark.parametrize("lie", MENDED, ids=lambda lie: lie.__name__)
def test_and_not_for_ever(lie: Answer) -> None:
    with serving(CONTENT, after_the_head(lie, 1000)) as server, pytest.raises(Fault) as caught:
        fetched(server)
    assert caught.value.kind == "network"
    assert len(server.asked) == 1 + QUICK.tries
    assert f"asked {QUICK.tries} times" in caught.value.text


def test_what_came_before_a_break_is_not_asked_for_again() -> None:
    with serving(CONTENT, after_the_head(be_short, 2)) as server:
        fetched(server)
    assert server.asked[2].first > PART[1] - 200


def wait(line: socket.socket, asked: Asked, content: bytes) -> None:
    time.sleep(5)


def trickle(line: socket.socket, asked: Asked, content: bytes) -> None:
    line.sendall(
        f"HTTP/1.1 206 P\r\nContent-Length: {asked.last - asked.first + 1}\r\n"
        f"Content-Range: bytes {asked.first}-{asked.last}/{len(content)}\r\n\r\n".encode()
    )
    for place in range(asked.first, asked.last):
        line.sendall(content[place : place + 1])
        time.sleep(0.02)


def trickle_headers(line: socket.socket, asked: Asked, content: bytes) -> None:
    line.sendall(b"HTTP/1.1 206 P\r\n")
    for number in range(1000):
        line.sendall(f"X-{number}: x\r\n".encode())
        time.sleep(0.02)


def continue_for_ever(line: socket.socket, asked: Asked, content: bytes) -> None:
    while True:
        line.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize("lie", [wait, trickle, trickle_headers, continue_for_ever])
@pytest.mark.parametrize("head", [0, 1])
def test_a_server_that_stops_answering_is_left(lie: Answer, head: int) -> None:
    started = time.monotonic()
    with serving(CONTENT, at_first(head, honest, lie)) as server, pytest.raises(Fault) as caught:
        fetched(server)
    assert caught.value.kind == "network"
    assert "stopped answering" in caught.value.text or "isn't HTTP" in caught.value.text
    assert time.monotonic() - started < 3


def test_slow_but_steady_is_waited_for() -> None:
    def steadily(line: socket.socket, asked: Asked, content: bytes) -> None:
        body = content[asked.first : asked.last + 1]
        line.sendall(
            f"HTTP/1.1 206 P\r\nContent-Length: {len(body)}\r\n"
            f"Content-Range: bytes {asked.first}-{asked.last}/{len(content)}\r\n\r\n".encode()
        )
        for start in range(0, len(body), 3000):
            line.sendall(body[start : start + 3000])
            time.sleep(0.06)

    with serving(CONTENT, at_first(1, honest, steadily)) as server:
        assert fetched(server) == CONTENT[PART[0] : PART[1] + 1]  # in twice the patience
    assert len(server.asked) == 2


def flood(line: socket.socket, asked: Asked, content: bytes) -> None:
    """Far more than was asked for, and no length."""
    line.sendall(
        f"HTTP/1.1 206 P\r\nContent-Range: bytes {asked.first}-{asked.last}/{len(content)}\r\n\r\n".encode()
    )
    line.sendall(content[asked.first : asked.last + 1])
    while True:
        line.sendall(bytes(2**20))


def test_no_more_is_taken_than_was_asked_for() -> None:
    with serving(CONTENT, flood) as server:
        assert fetched(server) == CONTENT[PART[0] : PART[1] + 1]


def flood_headers(line: socket.socket, asked: Asked, content: bytes) -> None:
    line.sendall(b"HTTP/1.1 206 P\r\nX: ")
    while True:
        line.sendall(b"x" * 2**16)


def flood_whole(line: socket.socket, asked: Asked, content: bytes) -> None:
    line.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        line.sendall(bytes(2**16))


def announce_terabytes(line: socket.socket, asked: Asked, content: bytes) -> None:
    line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999\r\n\r\n")


@pytest.mark.parametrize(
    ("lie", "says"),
    [(flood_headers, "isn't HTTP"), (flood_whole, "no end"), (announce_terabytes, "whole files only")],
)
def test_endless_answers_end(lie: Answer, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecodetect.web.upstream.MOST_WHOLE", 2**20)
    with serving(CONTENT, lie) as server, pytest.raises(Fault, match=says):
        fetched(server)


def test_a_server_without_ranges_gives_a_small_file_whole() -> None:
    with serving(CONTENT, send_all) as server:
        assert fetched(server) == CONTENT[PART[0] : PART[1] + 1]
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (saying("404 Not Found"), "address", "HTTP 404 Not Found"),
        (saying("403 Forbidden"), "address", "HTTP 403 Forbidden"),
        (saying("416 No"), "address", "empty"),
        (saying("503 No", "Retry-After: 86400\r\n"), "network", "asks to wait 86400 s"),
        (saying("302 Found", "Location: file:///etc/passwd\r\n"), "address", "isn't a web address"),
        (saying("302 Found", "Location: ftp://127.0.0.1/x\r\n"), "address", "isn't a web address"),
        (saying("302 Found"), "address", "more than 5 times"),
        (saying("302 Found", "Location: /next\r\n"), "address", "more than 5 times"),
        (saying("302 Found", "Location: http://169.254.169.254/keys\r\n"), "address", "private network"),
        (saying("302 Found", "Location: http://127.0.0.1:9/\r\n"), "address", "private network"),
        (saying("302 Found", "Location: http://[::1]:9/\r\n"), "address", "private network"),
        (saying("302 Found", "Location: http://2130706433:9/\r\n"), "address", "private network"),
        (saying("206 P", "Content-Encoding: gzip\r\n"), "network", "packed"),
        (saying("206 P", "Content-Range: bytes 0-99/*\r\n"), "network", "how long"),
        (saying("204 Nothing"), "address", "HTTP 204"),
    ],
)
def test_what_no_trying_mends_is_said_at_once(answer: Answer, kind: str, says: str) -> None:
    with serving(CONTENT, answer) as server, pytest.raises(Fault, match=says) as caught:
        fetched(server)
    assert caught.value.kind == kind
    assert len(server.asked) <= 6


def test_packed_content_is_not_taken_for_the_file() -> None:
    def pack(line: socket.socket, asked: Asked, content: bytes) -> None:
        body = gzip.compress(content)
        line.sendall(
            f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    with serving(CONTENT, pack) as server, pytest.raises(Fault, match="packed"):
        fetched(server)
    assert server.asked[0].headers["accept-encoding"] == "identity"


def test_a_redirect_on_the_same_server_is_followed_and_remembered() -> None:
    def lead(line: socket.socket, asked: Asked, content: bytes) -> None:
        if asked.path == "/ortho.tif":
            saying("302 Found", "Location: /moved.tif\r\n")(line, asked, content)
        else:
            honest(line, asked, content)

    with serving(CONTENT, lead) as server:
        assert fetched(server) == CONTENT[PART[0] : PART[1] + 1]
    assert [asked.path for asked in server.asked] == ["/ortho.tif", "/moved.tif", "/moved.tif"]


def test_passwords_go_to_nobody_else() -> None:
    with serving(CONTENT) as server:
        upstream = Upstream(server.address.replace("http://", "http://user:secret@"), QUICK, {})
        upstream.begin()
        upstream.close()
    assert server.asked[0].headers["authorization"].startswith("Basic ")
    assert "secret" not in server.asked[0].path


@pytest.mark.parametrize(
    ("later", "says"),
    [
        (lambda line, asked, content: honest(line, asked, content, etag='"2"'), "ETag"),
        (lambda line, asked, content: honest(line, asked, content + b"x"), "bytes"),
        (saying("416 No"), "shorter"),
    ],
)
def test_a_file_that_changes_is_noticed(later: Answer, says: str) -> None:
    with serving(CONTENT, at_first(1, honest, later)) as server:
        with pytest.raises(Fault, match=says) as caught:
            fetched(server)
        assert caught.value.kind == "changed"
        server.asked.clear()
        upstream = Upstream(server.address, QUICK, {})
        upstream.begin()
        with pytest.raises(Fault, match=says):
            upstream.look()
        with pytest.raises(Fault):  # it stays so
            list(upstream.fetch(0, 10))


def test_a_tag_made_weak_on_the_way_is_the_same() -> None:
    later = lambda line, asked, content: honest(line, asked, content, etag='W/"1"')  # noqa: E731
    with serving(CONTENT, at_first(1, honest, later)) as server:
        assert fetched(server) == CONTENT[PART[0] : PART[1] + 1]


def test_nobody_waits_any_more_once_it_is_given_up() -> None:
    with serving(CONTENT, at_first(1, honest, wait)) as server:
        upstream = Upstream(server.address, Limits(), {})
        upstream.begin()
        threading.Timer(0.2, upstream.give_up).start()
        started = time.monotonic()
        with pytest.raises(Fault, match="stopped"):
            list(upstream.fetch(*PART))
        assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "address", ["http://", "http:///x", "http://a b/x", "ftp://a/x", "http://a:99999/", "http://a/\r\nX: y"]
)
def test_no_address(address: str) -> None:
    with pytest.raises(Fault, match="not well-formed"):
        Upstream(address, QUICK, {})


def test_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    upstream = Upstream(f"http://127.0.0.1:{port}/x.tif", QUICK, {})
    with pytest.raises(Fault, match="refuses connections") as caught:
        upstream.begin()
    assert caught.value.kind == "network"


def test_a_proxy_is_asked_where_the_environment_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_connection.urllib.request, "proxy_bypass", lambda _: False)
    with serving(CONTENT) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        upstream = Upstream("http://data.example/ortho.tif", QUICK, {})
        upstream.begin()
        upstream.close()
    assert proxy.asked[0].path == "http://data.example/ortho.tif"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    file = tmp_path / "certificate.pem"
    file.write_text(CERTIFICATE)
    return file


def tls_of(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@contextmanager
def trusting(certificate: Path) -> Iterator[None]:
    web_connection.trust(str(certificate))
    try:
        yield
    finally:
        web_connection.trust(None)


def test_no_way_down_from_https(certificate: Path) -> None:
    down = saying("302 Found", "Location: http://localhost/x\r\n")
    with serving(CONTENT, down, tls=tls_of(certificate)) as server, trusting(certificate):
        upstream = Upstream(server.address.replace("http://127.0.0.1", "https://localhost"), QUICK, {})
        with pytest.raises(Fault, match="from https to http"):
            upstream.begin()


def test_a_certificate_that_nobody_vouches_for(certificate: Path) -> None:
    file = certificate
    with serving(CONTENT, tls=tls_of(file)) as server:
        server_address = server.address.replace("http://127.0.0.1", "https://localhost")
        upstream = Upstream(server_address, QUICK, {})
        with pytest.raises(Fault, match="certificate isn't valid") as caught:
            upstream.begin()
        assert caught.value.kind == "address"
        with trusting(file):
            upstream = Upstream(server_address, QUICK, {})
            upstream.begin()
            assert b"".join(upstream.fetch(*PART)) == CONTENT[PART[0] : PART[1] + 1]
            upstream.close()


def test_no_tls_where_tls_is_asked_for() -> None:
    with serving(CONTENT) as server, pytest.raises(Fault) as caught:
        Upstream(server.address.replace("http://", "https://"), QUICK, {}).begin()
    assert caught.value.kind == "network"


def test_a_handshake_that_never_ends() -> None:
    """The server takes the connection and says a byte now and then."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def stall() -> None:
            for _ in range(QUICK.silent_tries):
                line, _ = listening.accept()
                threading.Thread(target=dribble, args=(line,), daemon=True).start()

        def dribble(line: socket.socket) -> None:
            with line:
                try:
                    line.sendall(b"\x16\x03\x03\x3f\xff")
                    while True:
                        line.sendall(b"\x02")
                        time.sleep(0.05)
                except OSError:
                    return

        threading.Thread(target=stall, daemon=True).start()
        started = time.monotonic()
        with pytest.raises(Fault, match="stopped answering"):
            Upstream(f"https://127.0.0.1:{listening.getsockname()[1]}/x", QUICK, {}).begin()
        assert time.monotonic() - started < 3

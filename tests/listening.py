"""A port that tells whether anybody called: no test that touches only local files may reach it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def listening() -> Iterator[str]:
    """The address of a port; AssertionError where anybody has called it by the end."""
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        port.listen(16)
        port.setblocking(False)
        yield f"127.0.0.1:{port.getsockname()[1]}"
        try:
            port.accept()[0].close()
        except BlockingIOError:
            return
        raise AssertionError("a request has left the machine")

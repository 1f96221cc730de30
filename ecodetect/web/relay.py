"""The process between GDAL and the network: GDAL asks it on loopback, and it asks the servers.

A process of its own, for GDAL may wait for an answer while it holds Python's lock. Its parent, which alone
knows the secret in its addresses, is `raster.remote`; what it does for it is in `upstream`. It ends when its
standard input does.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import sys
import threading
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ecodetect.web.connection import Fault, Limits, trust
from ecodetect.web.upstream import Upstream


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, secret: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.secret = secret
        self.files: dict[str, Upstream] = {}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing on stderr: GDAL has hung up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""

    def _file(self) -> tuple[str, str] | None:
        """Number of a file and the request about it; None, with a refusal, for anyone except our parent."""
        _, secret, *more = self.path.split("/", 3)
        if secret != self.server.secret or len(more) != 2:
            self._say(404)
            return None
        return more[0], more[1]

    def _say(self, status: int, content: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _say_json(self, facts: Any) -> None:
        self._say(200, json.dumps(facts).encode())

    def do_POST(self) -> None:
        asked = self._file()
        if asked is None:
            return
        number, verb = asked
        content = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        upstream = self.server.files.get(number)
        if verb == "open":
            fault = None
            try:
                upstream = Upstream(content["address"], Limits(**content["limits"]), content["headers"])
                self.server.files[number] = upstream
                upstream.begin()
            except Fault as found:
                fault = asdict(found)
            facts = None if upstream is None or upstream.facts is None else asdict(upstream.facts)
            head = "" if upstream is None else base64.b64encode(upstream.head).decode()
            self._say_json({"fault": fault, "facts": facts, "head": head})
        elif upstream is None:
            self._say_json({"fault": None})
        elif verb == "fault":
            self._say_json({"fault": None if upstream.fault is None else asdict(upstream.fault)})
        elif verb == "look":
            with contextlib.suppress(Fault):
                upstream.look()
            self._say_json({"fault": None if upstream.fault is None else asdict(upstream.fault)})
        elif verb == "give-up":
            upstream.give_up()
            self._say_json({})
        elif verb == "close":
            self.server.files.pop(number).close()
            self._say_json({})

    def do_HEAD(self) -> None:
        self._give()

    def do_GET(self) -> None:
        self._give()

    def _give(self) -> None:
        asked = self._file()
        if asked is None:
            return
        upstream = self.server.files.get(asked[0])
        if (
            upstream is None
            or upstream.facts is None
            or not asked[1].startswith("file/")
            or "/" in asked[1][5:]
        ):
            self._say(404)
            return
        length = upstream.facts.length
        parts = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = 0, length - 1
        if parts:
            first, last = int(parts[1]), min(last, int(parts[2] or last))
        if first > last:
            self._say(416)
            return
        with contextlib.closing(upstream.fetch(first, last)) as pieces:
            piece = b""
            if self.command == "GET":
                try:
                    piece = next(pieces, b"")
                except Fault:
                    self._say(502)
                    return
            self.send_response(206 if parts else 200)
            if parts:
                self.send_header("Content-Range", f"bytes {first}-{last}/{length}")
            self.send_header("Content-Length", str(last - first + 1))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            try:
                while piece:
                    self.wfile.write(piece)
                    piece = next(pieces, b"")
            except Fault:
                self.close_connection = True  # GDAL sees that bytes are missing, and our parent asks why


def main() -> None:
    """Serve until standard input ends; the first line of it says the secret and where certificates are."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which decides
    given = json.loads(sys.stdin.readline())
    trust(given["certificates"])
    with contextlib.suppress(OSError):
        os.chdir(Path(sys.executable).anchor or "/")  # not a folder that a user may want to remove
    server = _Server(given["secret"])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    while sys.stdin.read(1):
        pass
    os._exit(0)

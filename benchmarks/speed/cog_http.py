"""How many bytes of a cloud-optimised GeoTIFF a scan of 1 % of it fetches.

    python -m benchmarks.speed.cog_http /tmp/bench

A server on loopback that knows ranges counts what it sends. The area of interest is a square in the middle;
the result has to be that of the local file.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.measuring import cost_of, make_command, scan_command, table


def main() -> None:
    """Serve a raster on this machine, scan a part of it, and print the bytes fetched."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="for the raster; it is used again if it is there")
    parser.add_argument("--size", type=int, default=10_000, help="side of the raster in pixels")
    parser.add_argument("--share", type=float, default=0.01, help="of the ground to be searched")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    cog = given.folder / f"cog-{given.size}.tif"
    if not cog.exists():
        plain = given.folder / f"deflate-{given.size}.tif"
        cost_of(make_command(plain, given.size))
        _optimise(plain, cog)
    area = given.folder / "area.geojson"
    _write_area(cog, area, given.share)
    file_bytes = cog.stat().st_size
    rows = []
    for model, flags in (
        ("threshold", ("--set", "level=126")),
        ("threshold", ()),
        ("threshold", ("--set", "gsd=0.2m")),
        ("threshold", ("--set", "gsd=0.4m")),
        ("blobs", ()),
    ):
        local, remote = given.folder / "local.csv", given.folder / "remote.csv"
        asked = ("-m", model, *flags, "--aoi", str(area), "--restart")
        cost_of(scan_command(cog, local, *asked))
        with _Server(cog) as server:
            cost = cost_of(scan_command(server.address, remote, *asked))
        same = "yes" if local.read_bytes() == remote.read_bytes() else "NO"
        fetched = [f"{server.sent / 1e6:.2f}", server.requests, f"{server.sent / file_bytes:.2%}"]
        name = " ".join((model, *flags[1:]))
        rows.append([name, f"{file_bytes / 1e6:.0f}", *fetched, same, f"{cost.wall_s:.1f}"])
    header = ["detector", "file MB", "fetched MB", "requests", "share", "as from the local file", "s"]
    print(table(header, rows))


def _optimise(plain: Path, cog: Path) -> None:
    """In a process of its own: it takes memory."""
    code = (
        "import sys, rasterio.shutil as s; "
        "s.copy(sys.argv[1], sys.argv[2], driver='COG', compress='DEFLATE', predictor='YES', bigtiff='YES')"
    )
    unfinished = cog.with_suffix(".part")
    cost_of([sys.executable, "-c", code, str(plain), str(unfinished)])
    shutil.move(unfinished, cog)


def _write_area(raster: Path, area: Path, share: float) -> None:
    import geopandas
    import rasterio
    import shapely

    with rasterio.open(raster) as dataset:
        left, bottom, right, top = dataset.bounds
        crs = dataset.crs
    x, y, half = (left + right) / 2 + 7.3, (bottom + top) / 2 + 7.3, (right - left) * share**0.5 / 2
    square = shapely.box(x - half, y - half, x + half, y + half)
    geopandas.GeoDataFrame(geometry=[square], crs=crs).to_crs(4326).to_file(area)


class _Server:
    """Serves one file on loopback, with ranges.  sent : bytes of content; requests : that asked for them."""

    def __init__(self, file: Path) -> None:
        self.sent = self.requests = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(with_content=False)

            def do_GET(self) -> None:
                self._answer(with_content=True)

            def _answer(self, *, with_content: bool) -> None:
                if self.path != f"/{file.name}":
                    self.send_error(404)
                    return
                size = file.stat().st_size
                asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                first = int(asked[1]) if asked else 0
                last = min(int(asked[2]) if asked and asked[2] else size - 1, size - 1)
                self.send_response(206 if asked else 200)
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("Content-Length", str(last - first + 1))
                if asked:
                    self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
                self.end_headers()
                if not with_content:
                    return
                with file.open("rb") as source:
                    source.seek(first)
                    content = source.read(last - first + 1)
                server.requests += 1
                try:
                    server.sent += self.wfile.write(content)
                except OSError:  # the reader has enough and hangs up
                    server.sent += len(content)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}/{file.name}"

    def __enter__(self) -> _Server:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


if __name__ == "__main__":
    main()

"""Rasters by address: few bytes of a large file, the same fingerprint, one sentence when it isn't there."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from ecodetect.errors import RasterError
from ecodetect.grid import Window
from ecodetect.raster import open_raster

SIDE = 3072


class Server(ThreadingHTTPServer):
    """Serves one folder with byte ranges and counts what it sent."""

    sent = 0
    folder: Path


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        file = self.server.folder / self.path.lstrip("/")
        if not file.is_file():
            self.send_error(404)
            return
        content = file.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = 0, len(content) - 1
        if asked:
            first, last = int(asked[1]), min(last, int(asked[2] or last))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if with_body:
            self.server.sent += last - first + 1
            self.wfile.write(content[first : last + 1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    waves = 120 + 60 * np.sin(x / 90) + 40 * np.cos(y / 70)
    pixels = np.clip(waves + np.random.default_rng(0).normal(0, 6, waves.shape), 0, 255).astype(np.uint8)[
        None
    ]
    with rasterio.open(
        folder / "plain.tif", "w", driver="GTiff", width=SIDE, height=SIDE, count=1, dtype="uint8",
        crs="EPSG:32631", transform=rasterio.Affine(0.1, 0, 5e5, 0, -0.1, 5e6),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    rasterio.shutil.copy(
        folder / "plain.tif", folder / "cog.tif", driver="COG", compress="deflate", blocksize=256,
        overview_resampling="average",
    )  # fmt: skip
    serving = Server(("127.0.0.1", 0), Handler)
    serving.folder = folder
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield serving
    serving.shutdown()
    serving.server_close()


def test_a_small_part_costs_few_bytes(server: Server) -> None:
    size = (server.folder / "cog.tif").stat().st_size
    server.sent = 0
    with open_raster(f"http://127.0.0.1:{server.server_port}/cog.tif") as raster:
        fingerprint = raster.fingerprint
        window = Window(1000, 1000, 307, 307)  # 1 % of it
        with raster.env(cache_bytes=2**24, threads=2):
            pixels = raster.read(window, raster.bands).pixels
        assert server.sent < 0.1 * size  # of a small file; blocks of 256 px are large against it
        server.sent = 0
        grid = raster.grid.resampled(1.6)
        coarse = raster.read(grid.window, raster.bands, grid)
        assert server.sent < 0.2 * size
    with open_raster(server.folder / "cog.tif") as raster:
        assert raster.fingerprint == fingerprint
        np.testing.assert_array_equal(raster.read(window, raster.bands).pixels, pixels)
        np.testing.assert_array_equal(raster.read(grid.window, raster.bands, grid).pixels, coarse.pixels)


def test_what_a_survey_has_fetched_is_not_fetched_again(server: Server) -> None:
    window = Window(1000, 1000, 307, 307)
    with open_raster(f"http://127.0.0.1:{server.server_port}/cog.tif") as raster:
        for grid in (raster.grid, raster.grid.resampled(0.2)):
            with raster.env(cache_bytes=2**24):
                surveyed = raster.read(window, raster.bands, grid)
            server.sent = 0
            with raster.env(cache_bytes=2**23, threads=2):
                searched = raster.read(window, raster.bands, grid)
            assert server.sent == 0
            np.testing.assert_array_equal(searched.pixels, surveyed.pixels)


def test_no_such_address(server: Server) -> None:
    address = f"http://127.0.0.1:{server.server_port}/none.tif"
    with pytest.raises(RasterError, match="404") as caught:
        open_raster(address)
    assert address in str(caught.value)


def test_a_vrt_at_an_address_is_no_raster(server: Server) -> None:
    (server.folder / "evil.tif").write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        "<SourceFilename>/etc/passwd</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>",
        encoding="ascii",
    )
    with pytest.raises(RasterError, match="can't be opened"):
        open_raster(f"http://127.0.0.1:{server.server_port}/evil.tif")

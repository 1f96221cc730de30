"""Rasters by address: few bytes of a large file, the same fingerprint, one sentence when it isn't there."""

from __future__ import annotations

import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from command_line import Run
from listening import listening
from lying_server import Answer, Asked, at_first, honest, saying, serving
from rasterio.io import MemoryFile

from ecodetect.errors import NetworkError, RasterError, UserError
from ecodetect.grid import Window
from ecodetect.raster.reading import open_raster
from ecodetect.scanning.files import scan_files
from ecodetect.scanning.results import Summary
from ecodetect.scanning.settings import Settings
from ecodetect.web.connection import Limits

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


# -- servers that don't behave -------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little patience."""
    limits = Limits(connect_s=1, patience_s=0.4, least_bytes=64, tries=3, pause_s=0.01)
    monkeypatch.setattr("ecodetect.raster.remote.limits", limits)


@pytest.fixture(scope="module")
def ortho(server: Server) -> bytes:
    return (server.folder / "cog.tif").read_bytes()


FAR = Window(2000, 2000, 300, 300)  # not in what is read on opening


@pytest.mark.usefixtures("quick")
def test_a_server_that_fails_now_and_then_gives_the_same_pixels(server: Server, ortho: bytes) -> None:
    def now_and_then(line: socket.socket, asked: Asked, content: bytes) -> None:
        (saying("503 No"), honest, honest)[asked.number % 3](line, asked, content)

    with open_raster(server.folder / "cog.tif") as raster:
        expected = raster.read(FAR, raster.bands).pixels
    with serving(ortho, now_and_then) as lying, open_raster(lying.address) as raster:
        np.testing.assert_array_equal(raster.read(FAR, raster.bands).pixels, expected)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("later", "says"),
    [
        (saying("503 No"), r"the server answers 503 Service Unavailable, asked 3 times\).*network's fault"),
        (lambda line, asked, content: time.sleep(2), "stopped answering"),
        (lambda line, asked, content: honest(line, asked, content, etag='"2"'), "has changed on its server"),
        (saying("403 Forbidden"), "HTTP 403 Forbidden"),
    ],
)
def test_what_the_network_does_is_not_called_damage(ortho: bytes, later: Answer, says: str) -> None:
    with serving(ortho) as lying, open_raster(lying.address) as raster:
        lying.answer = later
        with pytest.raises(RasterError, match=says) as caught:
            raster.read(FAR, raster.bands)
        assert isinstance(caught.value, NetworkError) == ("changed" not in says)
        assert "damaged" not in str(caught.value)
        assert "127.0.0.1" in str(caught.value)  # the server's address
        assert "vsicurl" not in str(caught.value)


@pytest.mark.usefixtures("quick")
def test_a_damaged_file_is_called_damaged(ortho: bytes) -> None:
    middle = len(ortho) // 2
    damaged = ortho[:middle] + bytes(len(ortho) - middle - 1000) + ortho[-1000:]
    with serving(damaged) as lying, open_raster(lying.address) as raster:
        with pytest.raises(RasterError, match="damaged or truncated") as caught:
            raster.read(raster.grid.window, raster.bands)
        assert not isinstance(caught.value, NetworkError)


@pytest.mark.usefixtures("quick")
def test_a_file_replaced_in_the_end_is_noticed(ortho: bytes) -> None:
    with serving(ortho) as lying:
        with open_raster(lying.address) as raster:
            state = raster.state
            raster.check_unchanged(state)
            lying.answer = lambda line, asked, content: honest(line, asked, content, etag='"2"')
            with pytest.raises(RasterError, match="has changed"):
                raster.check_unchanged(state)
        with open_raster(lying.address) as raster:
            assert raster.state != state


@pytest.mark.usefixtures("quick")
def test_nothing_beside_the_file_is_asked_for(ortho: bytes) -> None:
    with serving(ortho) as lying, open_raster(lying.address) as raster:
        raster.read(FAR, raster.bands)
    assert {asked.path for asked in lying.asked} == {"/ortho.tif"}


def test_ctrl_c_is_heard_while_a_server_is_waited_for(ortho: bytes) -> None:
    with serving(ortho) as lying, open_raster(lying.address) as raster:
        lying.answer = lambda line, asked, content: time.sleep(5)
        threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            raster.read(FAR, raster.bands)
        assert time.monotonic() - started < 3


def _scanned(image: str, out: Path) -> tuple[list[Summary], list[tuple[str, UserError]]]:
    return scan_files([image], Settings(model="threshold", options={"level": "150"}, tile_px=256), str(out))


@pytest.mark.usefixtures("quick")
def test_what_was_done_before_the_network_failed_is_kept(ortho: bytes, tmp_path: Path) -> None:
    out = tmp_path / "broken.csv"
    with serving(ortho) as lying:
        _scanned(lying.address, tmp_path / "whole.csv")
        lying.answer = at_first(2 * len(lying.asked) - 6, honest, saying("503 No"))
        _, ((_, error),) = _scanned(lying.address, out)
        assert isinstance(error, NetworkError)
        assert re.search(r"503.*kept in .*broken.csv.journal", str(error))
        lying.answer = honest
        (summary,), failures = _scanned(lying.address, out)
        assert not failures
        assert summary.resumed
        assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.usefixtures("quick")
def test_a_file_replaced_before_a_scan_goes_on_is_searched_from_the_beginning(
    ortho: bytes, tmp_path: Path
) -> None:
    with serving(ortho) as lying:
        _scanned(lying.address, tmp_path / "whole.csv")
        lying.answer = at_first(2 * len(lying.asked) - 6, honest, saying("503 No"))
        _scanned(lying.address, tmp_path / "broken.csv")
        lying.answer = lambda line, asked, content: honest(line, asked, content, etag='"2"')
        (summary,), _ = _scanned(lying.address, tmp_path / "broken.csv")
    assert "raster-replaced" in [note.code for note in summary.notes]
    assert not summary.resumed


@pytest.mark.usefixtures("quick")
def test_a_file_replaced_during_a_scan_gives_no_result(ortho: bytes, tmp_path: Path) -> None:
    with serving(ortho) as lying:
        lying.answer = at_first(
            30, honest, lambda line, asked, content: honest(line, asked, content, etag='"2"')
        )
        _, ((_, error),) = _scanned(lying.address, tmp_path / "remote.csv")
    assert "has changed on its server" in str(error)
    assert not (tmp_path / "remote.csv").exists()


@pytest.mark.parametrize(
    "call",
    [
        ["info", "{}/a.geojson"],
        ["convert", "{}/a.gpkg", "out.csv"],
        ["check", "{sample}/dryland.tif", "{}/a.geojson"],
        ["scan", "{sample}/cells.png", "-m", "blobs", "--aoi", "{}/a.geojson", "-o", "out.csv"],
        ["scan", "{sample}/cells.png", "-m", "{}/a.safetensors", "-o", "out.csv"],
        ["evaluate", "/vsicurl/{}/a.csv", "{sample}/cells.csv"],
    ],
    ids=lambda call: call[0],
)
def test_nothing_but_a_raster_is_read_from_an_address(
    ecodetect: Run, sample_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with serving(b"{}") as lying:
        address = f"http://127.0.0.1:{lying.port}"
        ran = ecodetect(*(part.format(address, sample=sample_data) for part in call))
        assert not lying.asked
    assert ran.code == 2
    assert address in ran.err
    assert "download it" in ran.err
    assert ran.err.count("\n") == 1


# -- cloud storage -------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, quick: None) -> str:
    for name, value in {
        "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_NO_SIGN_REQUEST": "YES",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return "s3://bucket/ortho.tif"


def test_cloud_storage_that_fails_for_a_while(
    bucket: str, server: Server, ortho: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_raster(server.folder / "cog.tif") as raster:
        expected = raster.read(FAR, raster.bands).pixels
    with serving(ortho) as lying:
        monkeypatch.setenv("AWS_S3_ENDPOINT", f"127.0.0.1:{lying.port}")
        with open_raster(bucket) as raster:
            failing = lying.asked[-1].number + 2
            lying.answer = at_first(failing, saying("403 Forbidden"))
            np.testing.assert_array_equal(raster.read(FAR, raster.bands).pixels, expected)
            raster.check_unchanged(raster.state)
            lying.answer = saying("403 Forbidden")
            with pytest.raises(NetworkError, match="403"):
                raster.read(Window(0, 2500, 300, 300), raster.bands)


def test_cloud_storage_in_which_a_file_is_replaced(
    bucket: str, ortho: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(ortho) as lying:
        monkeypatch.setenv("AWS_S3_ENDPOINT", f"127.0.0.1:{lying.port}")
        with open_raster(bucket) as raster:
            assert raster.fingerprint
            with MemoryFile(ortho) as file, file.open() as dataset:
                pixels = dataset.read() // 2
                profile = dataset.profile
            with MemoryFile() as file:
                with file.open(**profile) as dataset:
                    dataset.write(pixels)
                lying.content = file.read()
            with pytest.raises(RasterError, match="has changed"):
                raster.check_unchanged(raster.state)


def test_what_a_file_on_a_server_names_is_not_followed(server: Server, tmp_path: Path) -> None:
    place = f"http://127.0.0.1:{server.server_port}"
    content = (server.folder / "plain.tif").read_bytes()
    tagged = server.folder / "tagged.tif"
    tagged.write_bytes(content)
    with listening() as address:
        with rasterio.open(tagged, "r+") as dataset:
            dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=f"/vsicurl/http://{address}/x.tif")
        with pytest.raises(RasterError, match=r"tagged\.tif names a file with its overviews"):
            open_raster(f"{place}/tagged.tif")
    for name, begins in (
        ("a.nc", b"\x89HDF\r\n\x1a\n"),
        ("a.pix", b"PCIDSK  "),
        ("a.gpkg", b"SQLite format 3\0"),
    ):
        (server.folder / name).write_bytes(begins + bytes(5000))
        with pytest.raises(RasterError, match=f"{name} can't be opened.*download it"):
            open_raster(f"{place}/{name}")

"""What can't be interrupted is done by a child that ends: in time, in bounded memory, with its parent."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ecodetect_cli.main import main

from ecodetect.errors import LayerError, RasterError, UserError
from ecodetect.guarding import guard

HERE = f"{Path(__file__).stem}:"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The child finds this file's functions, and is another one for the next test."""
    guard.end()
    monkeypatch.syspath_prepend(Path(__file__).parent)
    yield
    guard.end()


# -- what the child does in these tests


def refuse() -> None:
    raise LayerError("crowns.gpkg is empty.", parameter="layer")


def fill() -> int:
    return len(bytearray(3 << 30))


def arrow_and_more() -> int:
    import pyarrow as pa

    return len(pa.array(range(1000))) + len(bytearray(700 << 20))


def chatter() -> int:
    os.write(1, b"to standard output")
    os.write(2, b"to standard error")
    print("more of it", flush=True)
    return os.getpid()


def start_no_threads() -> None:
    def start(*_: object, **__: object) -> None:
        raise RuntimeError("unable to start watchdog thread")

    faulthandler.dump_traceback_later = start


def squares(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield bytes([number * number])


def without_end() -> Iterator[bytes]:
    while True:
        time.sleep(0.02)
        yield b"more"


# -- what its parent relies on


def test_a_result_comes_back_from_one_process_that_is_shared() -> None:
    first = guard.call("os:getpid", about="a.h5")
    assert first != os.getpid()
    assert guard.call("os:getpid", about="b.h5") == first
    assert list(guard.stream(HERE + "squares", 4, about="c.gpkg")) == [b"\0", b"\1", b"\4", b"\x09"]
    assert guard.call("os:getpid", about="d.h5") == first


def test_a_mistake_of_the_user_is_raised_as_the_child_has_raised_it() -> None:
    with pytest.raises(LayerError, match=r"^crowns\.gpkg is empty\.$") as raised:
        guard.call(HERE + "refuse", about="crowns.gpkg")
    assert raised.value.parameter == "layer"


@pytest.mark.parametrize(
    ("function", "given", "says"),
    [
        ("time:sleep", [60], r"^b\.h5 took longer than 0\.3 s to open; .* allow it 1\.5 s\.$"),
        ("os:abort", [], r"^b\.h5 is damaged: the library that reads it crashed"),
        ("os:_exit", [0], r"^b\.h5 is damaged"),
        (HERE + "fill", [], r"^b\.h5 takes more than 1 GB of memory"),
    ],
)
def test_what_hangs_crashes_or_fills_the_memory_is_one_sentence_and_the_next_file_is_reached(
    function: str, given: list[int], says: str
) -> None:
    first = guard.call("os:getpid", about="a.tif")
    with pytest.raises(RasterError, match=says), guard.timeout(0.3):
        guard.call(function, *given, about="b.h5", error=RasterError)
    assert not psutil.pid_exists(first)
    assert guard.call("os:getpid", about="c.tif") != first


def test_a_library_of_tables_leaves_the_memory_to_the_file() -> None:
    assert guard.call(HERE + "arrow_and_more", about="crowns.gpkg") == 1000 + (700 << 20)


def test_no_memory_for_a_thread_is_no_memory() -> None:
    guard.call(HERE + "start_no_threads", about="a.h5")
    with pytest.raises(LayerError, match=r"^b\.gpkg takes more than 1 GB of memory"):
        guard.call("os:getpid", about="b.gpkg", error=LayerError)


def test_a_stream_without_end_ends_too() -> None:
    with pytest.raises(LayerError, match="took longer"), guard.timeout(0.3):
        for _ in guard.stream(HERE + "without_end", about="views.gpkg", error=LayerError):
            pass


def test_a_stream_that_nobody_reads_on_leaves_nothing_behind() -> None:
    parts = guard.stream(HERE + "without_end", about="views.gpkg")
    next(parts)
    inside = guard.call("os:getpid", about="while it is open.h5")
    parts.close()
    assert guard.call("os:getpid", about="c.h5") == inside
    assert len(_children(os.getpid())) == 1


def test_the_time_limit_is_a_number_above_0() -> None:
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="above 0"), guard.timeout(wrong):
            pass


def test_a_file_that_is_read_whole_has_time_by_its_size() -> None:
    with guard.timeout(0.2):
        assert guard.call("time:sleep", 0.5, about="large.gml", bytes_read=10**9) is None


def test_nothing_that_a_library_prints_is_seen(capfd: pytest.CaptureFixture[str]) -> None:
    guard.call(HERE + "chatter", about="a.h5")
    assert capfd.readouterr() == ("", "")


def test_a_module_in_the_folder_of_the_data_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json.py", "ecodetect.py", "rasterio.py", "sitecustomize.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert Path(guard.call("os:getcwd", about="a.h5")) == tmp_path  # relative names mean the same there
    guard.call("rasterio:gdal_version", about="a.h5")
    assert not (tmp_path / "ran").exists()


def _children(pid: int) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(pid).children()
        if "ecodetect.guarding.guarded" in " ".join(child.cmdline())
    ]


PARENT = textwrap.dedent(
    """
    import sys, threading
    from ecodetect.guarding import guard
    guard.call("os:getpid", about="a.h5")
    print("started", flush=True)
    guard.call("time:sleep", 60, about="b.h5")
    """
)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it ends when it next asks for work")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_its_parent_however_that_dies(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        (child,) = _children(parent.pid)
        parent.send_signal(number)
        parent.wait(5)
    gone, alive = psutil.wait_procs([child], timeout=5)
    assert gone
    assert not alive


def test_the_command_line_gives_a_file_more_or_less_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []
    monkeypatch.setattr(guard, "call", lambda *_, **__: limits.append(guard.limit_s()) or "AAIGrid")
    grid = tmp_path / "a.asc"
    grid.write_text("ncols 2\nnrows 1\nxllcorner 0\nyllcorner 0\ncellsize 1\n3 4\n", encoding="ascii")
    assert main(["info", str(grid), "--timeout", "7"]) == 0
    assert main(["info", str(grid)]) == 0
    assert limits == [7, 60]
    assert main(["info", str(grid), "--timeout", "0"]) == 2

"""The harness of `benchmarks/robustness/fuzz_*.py` sees each way to break that it says it looks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A target that breaks in the way that the name of the opened file says.
BREAKING = """
import ctypes, socket, sys
sys.path.insert(0, {root!r})
from benchmarks.robustness import mutations
mutations.PORT += 1  # another round may be running
from benchmarks.robustness.fuzzing import Silent, Target, command, main
from benchmarks.robustness.mutations import PORT

def make(folder):
    opened = {{name: name + ".bin" for name in {ways!r}}}
    for name in opened:
        (folder / name).mkdir()
        (folder / name / opened[name]).write_bytes(b"good" * 30)
    return opened

def run(path, chance):
    libc, outside = ctypes.CDLL(None), path.parent.parent / "outside"
    way = path.stem
    if way == "traceback":
        raise KeyError("x")
    if way == "signal":
        ctypes.string_at(0)
    while way == "hang":
        pass
    if way == "memory":
        len(b"x" * 1_100_000_000)
    if way == "stray":
        print("a line")
    if way == "outside":
        libc.fopen(bytes(outside / "secret.tif"), b"r")
    if way == "outside2":
        (outside / "new.txt").write_text("x")
    if way == "left":
        (path.parent / "new.txt").write_text("x")
    if way == "network":
        socket.create_connection(("127.0.0.1", PORT), 1)
    if way == "silent":
        raise Silent("another result")
    if way == "refused":
        command("info", path)

sys.exit(main(Target("breaking", make, run, most_s=4)))
"""
WAYS = ("traceback", "signal", "hang", "memory", "stray", "outside", "outside2", "left", "network", "silent")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what happens outside is seen by inotify")
def test_each_way_to_break_is_seen(tmp_path: Path) -> None:
    ways = (*WAYS, "refused", "used")
    program = BREAKING.format(root=str(ROOT), ways=ways)
    command = [sys.executable, "-c", program, "--cases", str(len(ways)), "--kept", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    kept = sorted(folder.name.partition("-")[0] for folder in tmp_path.iterdir())
    assert kept == sorted(way.rstrip("2") for way in WAYS), done.stdout
    assert "1 refused" in done.stdout
    assert "1 used" in done.stdout

"""What every test file may use: the command line as a fixture, the sample data, reproducible hypothesis."""

from __future__ import annotations

import gc
import os
from pathlib import Path

# Two test processes share two cores; set before the libraries are imported that read it.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from command_line import Outcome, Run
from corner_scenes import write_corners
from ecodetect_cli.main import DEBUG_VARIABLE, main
from hypothesis import settings

# The same examples each time: a failure seen once is seen again. No deadline: the first call of a function
# may import a library that takes seconds.
settings.register_profile("reproducible", derandomize=True, deadline=None, max_examples=30)
settings.load_profile("reproducible")


def pytest_collection_finish() -> None:
    """What is imported by then lives to the end; searching it for garbage took 5 % of the run."""
    gc.freeze()


@pytest.fixture
def ecodetect(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `ecodetect ARGUMENTS...` in this process: `ecodetect("scan", path, "-m", "threshold").err`."""
    monkeypatch.delenv(DEBUG_VARIABLE, raising=False)

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()  # forget what was written before
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The folder of the committed sample scenes."""
    return Path(__file__).parents[1] / "sample_data"


@pytest.fixture(scope="session")
def corners(sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the upper left corner of each sample scene and its truth, for what needs no whole one."""
    return write_corners(sample_data, tmp_path_factory.mktemp("corners"))

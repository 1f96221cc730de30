"""The command line starts quickly, and what goes wrong is one line and an exit code."""

from __future__ import annotations

import errno
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import click
import pytest
from command_line import Outcome, Run
from ecodetect_cli import main as main_module
from ecodetect_cli.main import COMMANDS, DEBUG_VARIABLE

from ecodetect.errors import Interrupted, RasterError, UserError

# Each costs 0.1 to 5 s to import; `--help` needs none of them.
HEAVY = ("cv2", "geopandas", "numpy", "pandas", "pyarrow", "pyogrio", "pyproj", "rasterio", "scipy")
HEAVY += ("shapely", "skimage", "torch", "torchvision")
HELP_CALLS = [["--help"], ["--version"], [], *([name, "--help"] for name in COMMANDS)]


def python(source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source, *arguments], capture_output=True, text=True, encoding="utf-8"
    )


@pytest.fixture(scope="module")
def helped() -> dict[str, tuple[int, str, list[str]]]:
    """Exit code, what was printed and all modules that were there then, of each call; one after the other."""
    source = (
        "import contextlib, io, json, sys\n"
        "from ecodetect_cli.main import main\n"
        "found = {}\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as said:\n"
        "        code = main(arguments)\n"
        "    loaded = [name for name in sys.modules if '.' not in name]\n"
        "    found[' '.join(arguments)] = code, said.getvalue(), loaded\n"
        "print(json.dumps(found))"
    )
    done = python(source, json.dumps(HELP_CALLS))
    assert done.stderr == ""
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("arguments", HELP_CALLS, ids=" ".join)
def test_help_imports_nothing_heavy(
    arguments: list[str], helped: dict[str, tuple[int, str, list[str]]]
) -> None:
    code, said, loaded = helped[" ".join(arguments)]
    assert code == 0
    assert said.strip()
    assert not set(loaded) & set(HEAVY)


@pytest.mark.slow  # a figure of a machine at rest
@pytest.mark.parametrize("arguments", HELP_CALLS, ids=" ".join)
def test_help_takes_less_than_half_a_second(arguments: list[str]) -> None:
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        done = python("import sys; from ecodetect_cli.main import main; sys.exit(main())", *arguments)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0
    assert min(seconds) < 0.5


def test_importing_the_package_loads_nothing_else() -> None:
    done = python("import ecodetect, sys; print(*(name for name in sys.modules))")
    loaded = set(done.stdout.split())
    assert {name for name in loaded if name.startswith("ecodetect")} <= {"ecodetect"}
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_is_what_the_table_says(name: str) -> None:
    group = main_module.cli
    command = group.get_command(click.Context(group), name)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_whole_sentences(name: str) -> None:
    command = main_module.cli.get_command(click.Context(main_module.cli), name)
    assert command is not None
    text = inspect.cleandoc(command.help or "")
    assert f"Examples:\n  ecodetect {name}" in text
    for option in command.params:
        if isinstance(option, click.Option):
            help_text = option.help or ""
            sentence, _, default = help_text.partition("  [default: ")
            assert re.fullmatch(r"[A-Z].*\.", sentence), f"{option.name}: {help_text}"
            assert not default or default.endswith("]"), f"{option.name}: {help_text}"


def test_an_unknown_command_names_the_nearest(ecodetect: Run) -> None:
    outcome = ecodetect("scna")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "error: No command named 'scna'; did you mean scan? See `ecodetect --help`.\n"


def test_an_unknown_command_near_none_names_all(ecodetect: Run) -> None:
    outcome = ecodetect("xyzzy")
    assert outcome.code == 2
    assert outcome.err.startswith("error: No command named 'xyzzy'; known: scan, ")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--nonsense"], ["doctor", "--nonsense"], ["doctor", "too", "many"]])
def test_wrong_usage_is_one_line(ecodetect: Run, arguments: list[str]) -> None:
    outcome = ecodetect(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Put an action of the test in the place of the command `doctor`."""

    def install(action: Callable[[], object]) -> None:
        command = click.Command("doctor", callback=action)
        monkeypatch.setattr(main_module.LazyGroup, "get_command", lambda *_: command)

    return install


def raising(error: BaseException) -> Callable[[], object]:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("a.tif: no bands."), 2, "error: a.tif: no bands."),
        (RasterError("a.tif:\n  two\r\nlines"), 2, "error: a.tif: two lines"),
        (UserError("a\x1b[31m.tif"), 2, "error: a\N{REPLACEMENT CHARACTER}[31m.tif"),
        (UserError("Bäume 木.tif ≥ 3"), 2, "error: Bäume 木.tif ≥ 3"),
        (click.FileError("a.tif", "gone"), 2, "error: Could not open file 'a.tif': gone"),
        (click.Abort(), 130, "Stopped; the same command starts over."),
        (KeyboardInterrupt(), 130, "Stopped; the same command starts over."),
        (Interrupted("Stopped; the same command goes on."), 130, "Stopped; the same command goes on."),
    ],
)
def test_an_error_is_one_line_and_a_code(
    ecodetect: Run, failing: Callable[..., None], error: BaseException, code: int, line: str
) -> None:
    failing(raising(error))
    outcome = ecodetect("doctor")
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.strip() == line  # click ends the line of a terminal's ^C first
    assert outcome.err.endswith("\n")


def test_ctrl_c_that_a_library_makes_another_error_of_is_one(
    ecodetect: Run, failing: Callable[..., None]
) -> None:
    def action() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("numpy failed to import") from None

    failing(action)
    outcome = ecodetect("doctor")
    assert (outcome.code, outcome.err) == (130, "Stopped; the same command starts over.\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), EOFError("by zero"), OSError("by zero")])
def test_a_fault_of_ours_says_how_to_report_it(
    ecodetect: Run, failing: Callable[..., None], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(raising(error))
    outcome = ecodetect("doctor")
    name = type(error).__name__
    assert outcome.code == 1
    assert outcome.err.strip() == (
        f"error: internal: {name}: by zero; please report with the output of `ecodetect doctor`"
    )
    monkeypatch.setenv(DEBUG_VARIABLE, "1")
    assert "Traceback" in ecodetect("doctor").err


def test_a_closed_pipe_is_silent(ecodetect: Run, failing: Callable[..., None]) -> None:
    failing(raising(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    outcome = ecodetect("doctor")
    assert (outcome.out, outcome.err) == ("", "")


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (2, 2)])
def test_a_command_may_return_its_exit_code(
    ecodetect: Run, failing: Callable[..., None], result: int | None, code: int
) -> None:
    failing(lambda: result)
    assert ecodetect("doctor") == Outcome(code, "", "")


def test_only_our_own_warnings_reach_the_user() -> None:
    source = (
        "import logging, sys, warnings, click\n"
        "from ecodetect_cli import main as m\n"
        "def action():\n"
        "    warnings.warn('from a library')\n"
        "    logging.getLogger('rasterio._env').error('GDAL chatter')\n"
        "    logging.getLogger('ecodetect.scanning.files').info('detail')\n"
        "    logging.getLogger('ecodetect.scanning.files').warning('no\\nCRS')\n"
        "m.LazyGroup.get_command = lambda *_: click.Command('doctor', callback=action)\n"
        "sys.exit(m.main(['doctor']) or m.main(['doctor']))"
    )
    done = python(source)
    assert done.returncode == 0
    assert done.stderr == "warning: no CRS\n" * 2


def test_doctor_reports_a_healthy_installation(ecodetect: Run) -> None:
    outcome = ecodetect("doctor")
    assert outcome.err == ""
    assert outcome.code == 0, outcome.out
    for word in ("ecodetect ", "Python ", "GDAL", "PROJ", "GEOS", "opencv", "torch", "memory", "ok    "):
        assert word in outcome.out
    assert "FAIL" not in outcome.out


def test_doctor_shows_what_is_broken(ecodetect: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from ecodetect_cli import doctor

    def broken() -> str:
        raise ImportError("libGL.so.1: cannot open\nshared object file")

    monkeypatch.setitem(doctor.PACKAGES, "opencv", broken)
    monkeypatch.setitem(doctor.SELF_TEST, "find a contour (OpenCV)", broken)
    monkeypatch.setitem(doctor.RUNTIMES, "torch", lambda: "2.14.1")
    monkeypatch.setenv("PROJ_LIB", os.sep + "elsewhere")
    outcome = ecodetect("doctor")
    assert outcome.code == 1
    assert "ImportError: libGL.so.1: cannot open shared object file" in outcome.out
    assert "PROJ_LIB points outside" in outcome.out
    assert "elsewhere" not in outcome.out

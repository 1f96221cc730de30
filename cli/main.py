"""The `ecodetect` command: runs the one named, and turns what goes wrong into one line and an exit code.

Exit codes: 0 done; 1 a fault of ours; 2 the user's input can't be used; 3 done, but doubtful (with --strict);
130 interrupted. A command is imported when it is called and imports what is heavy inside its function, so
that `--help` stays quick.
Flags that several commands share are in `options`.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from types import FrameType
from typing import Any

import click

from ecodetect.errors import Interrupted, UserError
from ecodetect.extras import import_failure
from ecodetect.version import __version__

from .terminal import alone, say, sentence

_STOPPED = "Stopped; the same command starts over."
# What a system says of a file, and no fault of ours.
_OF_THE_SYSTEM = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOSPC, errno.ELOOP, errno.ENOTDIR,
    errno.EISDIR, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EDQUOT, errno.ESTALE,
)  # fmt: skip
DEBUG_VARIABLE = "ECODETECT_DEBUG"

COMMANDS = {  # name: (module, attribute, line in `ecodetect --help`), in the order of that help
    "scan": ("ecodetect_cli.scan", "scan", "Find the individuals in rasters and write them as a layer."),
    "candidates": ("ecodetect_cli.candidates", "candidates", "Write candidate patches as a layer."),
    "check": ("ecodetect_cli.check", "check", "Preview the data that training would use."),
    "train": ("ecodetect_cli.train", "train", "Train a detector from annotations on rasters."),
    "evaluate": ("ecodetect_cli.evaluate", "evaluate", "Compare detections with annotations."),
    "plots": ("ecodetect_cli.plots", "plots", "Draw plots on a scan's ground, to be checked."),
    "estimate": (
        "ecodetect_cli.estimate",
        "estimate",
        "Estimate a number of individuals from checked plots.",
    ),
    "count": ("ecodetect_cli.count", "count", "Count individuals by polygon or in a grid."),
    "classify": ("ecodetect_cli.classify", "classify", "Classify the objects of a layer, or images."),
    "explain": ("ecodetect_cli.explain", "explain", "Draw what a classifier's answer depends on."),
    "convert": ("ecodetect_cli.convert", "convert", "Convert a layer or annotations to another format."),
    "export": ("ecodetect_cli.export", "export", "Export a model to ONNX."),
    "info": ("ecodetect_cli.info", "info", "Describe a raster, a layer or a model."),
    "models": ("ecodetect_cli.models", "models", "List models and detectors."),
    "doctor": (
        "ecodetect_cli.doctor",
        "doctor",
        "Check the installation; paste its output into bug reports.",
    ),
}


class LazyGroup(click.Group):
    """The group of `COMMANDS`; imports the module of a command only when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(COMMANDS)}."
            raise click.UsageError(f"No command named '{name}'; {hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"Set {DEBUG_VARIABLE}=1 in the environment to see where an internal error happened.",
)
@click.version_option(__version__, prog_name="ecodetect")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """From any raster to a map of individuals: animals, plants, cells."""
    if ctx.invoked_subcommand is None:
        say(*ctx.get_help().splitlines())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows `ecodetect`; those of the process if not given.
    """
    quiet_libraries()
    # Networks' arrays of 100 MB come and go with each layer: in pages of 2 MB instead of 4 kB that takes half
    # the time of the system (Linux; torch reads this at its first array).
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    is_process = arguments is None and not os.environ.get(DEBUG_VARIABLE)
    with alone() if is_process else nullcontext(), _Interrupts() as interrupts:
        return _run(arguments, interrupts)


def _run(arguments: Sequence[str] | None, interrupts: _Interrupts) -> int:
    try:
        code = cli.main(arguments, prog_name="ecodetect", standalone_mode=False)
    except UserError as error:
        return _say(f"error: {_with_option(error, arguments)}", 2)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "ecodetect"
        return _say(f"error: {error.format_message()} See `{path} --help`.", 2)
    except click.ClickException as error:
        return _say(f"error: {error.format_message()}", 2)
    except (KeyboardInterrupt, click.Abort) as error:
        # click wraps both in an Abort; an end of file that no prompt asked for is a fault like any other.
        cause = error.__cause__ or error
        if isinstance(cause, EOFError):
            return _say_internal(cause)
        return _say(_with_option(cause, arguments) if isinstance(cause, Interrupted) else _STOPPED, 130)
    except ImportError as error:
        if interrupts.seen:
            return _say(_STOPPED, 130)
        missing = import_failure(error)
        return _say_internal(error) if missing is None else _say(f"error: {missing}", 2)
    except OSError as error:
        if error.errno not in _OF_THE_SYSTEM or error.filename is None:
            return _say_internal(error)
        return _say(f"error: {error.filename} can't be used: {error.strerror}.", 2)
    except Exception as error:  # noqa: BLE001 - nothing may reach the user as a traceback
        return _say_internal(error)
    return code if isinstance(code, int) else 0  # `ctx.exit(2)` and `return 2` in a command both say 2


def _with_option(said: UserError | Interrupted, arguments: Sequence[str] | None) -> str:
    """What a command has raised, with the option of it that would help."""
    command = cli.get_command(click.Context(cli), (sys.argv[1:] if arguments is None else arguments)[0])
    return sentence(said, command) if command else str(said)


def _say_internal(error: BaseException) -> int:
    if os.environ.get(DEBUG_VARIABLE):
        say(*"".join(traceback.format_exception(error)).splitlines(), to_stderr=True)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return _say(f"error: internal: {text}; please report with the output of `ecodetect doctor`", 1)


def _say(message: str, code: int) -> int:
    say(message, to_stderr=True)
    return code


# -> the handler that is there when nobody else has set one (nohup has, for example)
_STOPPING = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL, "SIGHUP": signal.SIG_DFL}


class _Interrupts:
    """Ctrl-C, also where the system says it with another signal: a shutdown, a scheduler, a closed terminal.

    It remembers that it came: a library that is being imported makes another error of it.
    """

    def __init__(self) -> None:
        self.seen = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            for name, usual in _STOPPING.items():
                number = getattr(signal, name, None)  # Windows has no SIGHUP
                if number is not None and signal.getsignal(number) == usual:
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        raise KeyboardInterrupt


class _OneLineHandler(logging.Handler):
    """Shows what `ecodetect` logs as `warning: …` on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {record.getMessage()}", to_stderr=True)


def quiet_libraries() -> None:
    """Keep to ourselves what the libraries underneath log and warn; let through what `ecodetect` logs."""
    if not logging.root.handlers:
        logging.root.addHandler(logging.NullHandler())  # or Python prints their errors to stderr
    ours = logging.getLogger("ecodetect")
    if not any(isinstance(handler, _OneLineHandler) for handler in ours.handlers):
        ours.addHandler(_OneLineHandler())
    warnings.simplefilter("ignore", append=True)  # last: filters set by `python -W` or a test go first


if __name__ == "__main__":
    sys.exit(main())

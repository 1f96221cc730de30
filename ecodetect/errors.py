"""The tree of errors: what went wrong, and whose mistake it was.

    EcodetectError            root of everything raised on purpose
    └── UserError             the input can't be used as requested; one sentence; exit code 2
        ├── RasterError       a raster can't be opened or read
        │   └── NetworkError  … for the network's sake
        ├── LayerError        a vector layer, table or annotation file can't be read or written
        ├── BundleError       a file isn't a bundle, or this version can't read it
        ├── GridError         two grids, frames or coordinate systems don't fit together
        ├── InUseError        another process is at work on the same output
        └── PackageError      a package that not every installation has is missing
    Interrupted               Ctrl-C after which the work can be resumed; exit code 130

A message is one sentence: subject (the file), rule, value got, remedy. It spells no flag of the command line,
since Python users read it too: it carries the `parameter` that would help, and the command line names its
flag.
"""

from __future__ import annotations

from collections.abc import Sequence


class EcodetectError(Exception):
    """Root of the errors that ecodetect raises on purpose."""


class UserError(EcodetectError, ValueError):
    """The user's input can't be used as requested; the message is one sentence with the remedy.

    parameter : what would help, by the name of its option (`gsd`, `ignore_edge`); one or several.
        The command line adds the flag to the sentence (`… (--gsd).`) where the command has it.
    """

    def __init__(self, message: str = "", *, parameter: str | Sequence[str] | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class RasterError(UserError, OSError):
    """A raster can't be opened or read."""


class NetworkError(RasterError):
    """A raster can't be read because of the network: finished work is sound, and the scan can resume."""


class LayerError(UserError):
    """A vector layer, table or annotation file can't be read or written."""


class BundleError(UserError):
    """A file isn't a bundle, or this version can't read it."""


class GridError(UserError):
    """Two grids, frames or coordinate systems don't fit together."""


class InUseError(UserError):
    """Another process is working on the same output."""


class PackageError(UserError):
    """A package is missing: reported once, not for each raster."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; the message says how to resume.  parameter : as for a UserError."""

    def __init__(self, message: str = "", *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


def already_there(path: object, reason: str = "", *, error: type[UserError] = UserError) -> UserError:
    """The error where a file lies in the place of an output.  reason : why it isn't what would be written."""
    text = f"{path} exists" + (f": {reason}" if reason else "")
    return error(f"{text}; give another name, or replace it.", parameter="overwrite")

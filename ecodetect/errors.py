"""The tree of errors: what went wrong, whose mistake it was.

    EcodetectError            root of everything raised on purpose
    └── UserError             the input can't be used as asked; one sentence; exit code 2
        ├── RasterError       a raster can't be opened or read
        │   └── NetworkError  … for the network's sake
        ├── LayerError        a vector layer, table or annotation file can't be read or written
        ├── GridError         two grids, frames or coordinate systems don't fit together
        ├── InUseError        another process is at work on the same output
        └── PackageError      a package that not every installation has is missing
    Interrupted               Ctrl-C after which the work can be resumed; exit code 130

A message is one sentence: subject (the file), rule, value got, remedy.
"""

from __future__ import annotations


class EcodetectError(Exception):
    """Root of the errors that ecodetect raises on purpose."""


class UserError(EcodetectError, ValueError):
    """The user's input can't be used as asked; the message is one sentence with the remedy.

    parameter : what would help, as functions call it; the command line says its option, where there is one.
    """

    def __init__(self, message: str = "", *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class RasterError(UserError, OSError):
    """A raster can't be opened or read."""


class NetworkError(RasterError):
    """A raster can't be read for the network's sake: what was done of it is sound, and may go on."""


class LayerError(UserError):
    """A vector layer, table or annotation file can't be read or written."""


class GridError(UserError):
    """Two grids, frames or coordinate systems don't fit together."""


class InUseError(UserError):
    """Another process is at work on the same output."""


class PackageError(UserError):
    """A package is missing, whatever the rasters: said once, not for each of them."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; the message says how to go on."""


def already_there(path: object, reason: str = "") -> UserError:
    """That a file lies where one is to be written.  reason : why it isn't what is to be written."""
    text = f"{path} exists; say --overwrite to replace it"
    return UserError(f"{text}: {reason}." if reason else f"{text}.")

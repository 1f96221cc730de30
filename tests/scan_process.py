"""Scans in processes of their own, to be killed: each begins with all that a scan needs imported."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path

NEEDED = ["ecodetect.detectors.threshold", "ecodetect.formats.files", "ecodetect.scanning.files"]
UNIT_PX = 96  # so small that even a sample scene has many


@contextlib.contextmanager
def scanning(
    arguments: list[str], *, said: Path | None = None, most_bytes: int | None = None
) -> Iterator[multiprocessing.process.BaseProcess]:
    """`ecodetect ARGUMENTS...` at work; ended with the block.

    said : the file that takes its standard error.  most_bytes : how large a file it may write.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *NEEDED])
    process = context.Process(target=_run, args=(arguments, said, most_bytes))
    process.start()
    try:
        yield process
    finally:
        process.join()


def _run(arguments: list[str], said: Path | None, most_bytes: int | None) -> None:
    import resource

    from ecodetect_cli.main import main

    from ecodetect.scanning import layout

    layout.UNIT_PX = UNIT_PX
    os.dup2(os.open(said or os.devnull, os.O_WRONLY | os.O_CREAT), 2)
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
    sys.exit(main(arguments))

"""The command line: one file per command and no logic; `main` starts it, `ecodetect` does the work.

The folder `cli` is installed as `ecodetect_cli`; modules here import each other as `from . import options`,
which mypy, checking by path, resolves too.
"""

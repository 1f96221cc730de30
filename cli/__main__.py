"""`python -m ecodetect_cli`: the command line for launchers that take a module, such as torchrun."""

from .main import main

if __name__ == "__main__":
    raise SystemExit(main())

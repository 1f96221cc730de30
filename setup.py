"""Which packages are installed: every one under `ecodetect/`, and the folder `cli/` as `ecodetect_cli`."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["ecodetect", "ecodetect.*"]), "ecodetect_cli"])

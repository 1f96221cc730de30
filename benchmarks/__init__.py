"""What ecodetect costs and how good it is: scripts that measure, run from the root of a checkout.

    python -m benchmarks.SHELF.SCRIPT

The results stand in docs/benchmarks.md, how each was measured in README.md beside this file.
"""

"""The version of ecodetect, in one place: the package, its outputs and the documentation read it here."""

__version__ = "0.1.0"

"""Optional packages: the extra that installs each, and the error where one is missing."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from ecodetect.errors import PackageError

# Large libraries, whose own parts fail to load on some machines. None: it comes with ecodetect itself.
_EXTRA_OF = {
    "torch": "train",
    "torchvision": "train",
    "sklearn": "train",
    "timm": "train",
    "onnx": "train",
    "onnxruntime": None,
}
TIMM = "timm/"  # begins the names of networks of timm
_CALLED = {"sklearn": "scikit-learn"}  # where pip knows a package by another name than Python


def check_installed(who: str, *packages: str, otherwise: str = "") -> None:
    """Raise PackageError where `who` (the beginning of the sentence) needs a package that isn't there.

    packages : names as Python imports them.
    otherwise : what to do without them; the end of the sentence.
    """
    lacking = [name for name in packages if find_spec(name) is None]
    if lacking:
        raise PackageError(_sentence(who, lacking, otherwise))


def import_failure(error: ImportError) -> PackageError | None:
    """The error for a package that can't be imported; None where the fault is ours."""
    name = (error.name or "").partition(".")[0]
    if not name or name in ("ecodetect", "ecodetect_cli") or name in sys.stdlib_module_names:
        return None
    if find_spec(name) is None:
        return PackageError(_sentence("This", [name]))
    if name in _EXTRA_OF:
        called = _CALLED.get(name, name)
        return PackageError(
            f"{called} is installed, but can't be loaded ({error}); reinstall it: pip install"
            f" --force-reinstall {called}."
        )
    return None


def _sentence(who: str, lacking: list[str], otherwise: str = "") -> str:
    extras = sorted(filter(None, {_EXTRA_OF.get(name) for name in lacking}))
    wanted = f'"ecodetect[{",".join(extras)}]"' if extras else "ecodetect"  # quotes for every shell
    listed = " and ".join(_CALLED.get(name, name) for name in lacking)
    verb = "isn't" if len(lacking) == 1 else "aren't"
    return f"{who} needs {listed}, which {verb} installed: pip install {wanted}{otherwise}."

"""Our own modules as their source says: what each imports, parsed once however many tests ask."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = {"ecodetect": ROOT / "ecodetect", "ecodetect_cli": ROOT / "cli"}


@dataclass(frozen=True)
class Import:
    """`from module import names`, with `level` dots before it; of `import names` the module is None."""

    line: int
    module: str | None
    level: int
    names: tuple[str, ...]
    is_for_types: bool


@cache
def modules() -> dict[str, tuple[bool, str]]:
    """{module: (is it a package, source)} of the repository."""
    sources = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            sources[name] = (is_package, path.read_text(encoding="utf-8"))
    return sources


@cache
def imports(source: str) -> tuple[Import, ...]:
    """Every import of a module, wherever it stands: at its top, in a function, for types only."""
    nodes = list(ast.walk(ast.parse(source)))
    for_types = {
        id(inner)
        for node in nodes
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    return tuple(
        Import(
            node.lineno,
            None if isinstance(node, ast.Import) else node.module or "",
            0 if isinstance(node, ast.Import) else node.level,
            tuple(alias.name for alias in node.names),
            id(node) in for_types,
        )
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
    )

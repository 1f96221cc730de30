"""What the pages say is true: commands run or at least exist, links lead somewhere, nothing is left out."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import io
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from command_line import Run
from ecodetect_cli.main import COMMANDS, cli

import ecodetect as package
from ecodetect.detectors.learned import Kind
from ecodetect.detectors.protocol import read_options
from ecodetect.detectors.table import TABLE, declared, describe
from ecodetect.formats import files as formats
from ecodetect.models import choosing

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
BOOK = ROOT / "benchmarks" / "README.md"
PAGES = (README, BOOK, ROOT / "recipes" / "README.md", *sorted(DOCS.rglob("*.md")))
# Also within an item of a list, where it is indented.
FENCE = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SAMPLES = "sample_data/"


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=page_name)
# Pages whose commands scan the scene again, with what README's have tried.
AGAIN = ("docs/index.md", "docs/quickstart.md", "docs/models/shrubs.md", "docs/detectors/selective_search.md")
each_page_at_work = pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page_name(page) in AGAIN)) for page in PAGES],
    ids=page_name,
)


@pytest.fixture(scope="module")
def generating() -> ModuleType:
    """`docs/generating.py` as a module."""
    spec = importlib.util.spec_from_file_location("docs_generating", DOCS / "generating.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language and text."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [Block(language, textwrap.dedent(text)) for language, text in found]


def command_lines(page: Path) -> list[list[str]]:
    """The `ecodetect` commands in the shell blocks of a page, as lists of words after `ecodetect`."""
    found = []
    for block in blocks(page):
        if block.language == "shell":
            for line in block.text.splitlines():
                for part in line.split("&&"):
                    words = shlex.split(part)
                    if Path(words[0]).name == "ecodetect":
                        found.append(words[1:])
    return found


def uses_samples(words: Sequence[str]) -> bool:
    return any(word.startswith(SAMPLES) for word in words)


@pytest.fixture
def checkout(tmp_path: Path, sample_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of the sample data, as the working folder."""
    # Without what README's first command has left there.
    leftovers = shutil.ignore_patterns("*.detections.*")
    shutil.copytree(sample_data, tmp_path / "sample_data", ignore=leftovers)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@each_page_at_work
def test_commands_and_scripts_on_sample_data_do_what_the_page_says(
    page: Path, checkout: Path, ecodetect: Run
) -> None:
    for words in dict.fromkeys(map(tuple, command_lines(page))):  # each once, however often it is shown
        if uses_samples(words):
            done = ecodetect(*words)
            assert done.code == 0, f"ecodetect {shlex.join(words)}: {done.err}"
    names: dict[str, Any] = {}
    shown = blocks(page)
    for block, after in pairwise([*shown, Block("", "")]):
        if block.language == "python" and (SAMPLES in block.text or names):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(block.text, page_name(page), "exec"), names)
            if after.language == "text":
                assert printed.getvalue() == after.text


def outputs(words: list[str]) -> Iterator[str]:
    """What a command writes, by its words; a scan without -o writes beside its raster."""
    command, *rest = words
    given = [rest[rest.index(flag) + 1] for flag in ("-o", "--out", "--score-map", "--sheet") if flag in rest]
    yield from (name for name in given if not name.endswith("/"))
    if command in ("scan", "candidates") and "-o" not in rest:
        yield f"{rest[0]}, {command}"
    if command == "convert":
        yield rest[1]


@pytest.mark.parametrize("words_of", [*PAGES, *COMMANDS], ids=lambda each: str(getattr(each, "name", each)))
def test_commands_can_be_run_one_after_another(words_of: Path | str) -> None:
    """None writes what another on the page, or in the help of a command, has written to another question."""
    if isinstance(words_of, Path):
        commands = command_lines(words_of)
    else:
        found = cli.get_command(click.Context(cli), words_of)
        assert found is not None
        lines = (found.help or "").splitlines()
        commands = [shlex.split(line)[1:] for line in lines if line.strip().startswith("ecodetect ")]
    by_output: dict[str, list[str]] = {}
    for words in commands:
        if words and words[0] in COMMANDS and not {"--dry-run", "--overwrite", "--resume"} & set(words):
            for name in outputs(words):
                assert by_output.setdefault(name, words) == words, name


@each_page
def test_commands_exist_with_their_flags(page: Path) -> None:
    for words in command_lines(page):
        command = cli.get_command(click.Context(cli), words[0])
        assert command is not None, words
        with command.make_context(words[0], words[1:]) as context:  # raises for what it doesn't know
            for setting in context.params.get("settings", ()):
                # `scan` takes several models, `candidates` one.
                for model in context.params.get("models") or (context.params["model"],):
                    assert_is_option(setting, model)


def assert_is_option(setting: str, detector: str) -> None:
    name, _, value = setting.partition("=")
    read_options(declared(detector).options, {name: value}, detector)


def flags_of(command: str) -> set[str]:
    """The options of a command, as they are written."""
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    return {flag for parameter in found.params for flag in (*parameter.opts, *parameter.secondary_opts)}


FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
# Commands that a page is about beside those that its name and its paragraphs name.
ABOUT = {"docs/formats.md": ("check", "convert", "scan"), "README.md": ("scan",)}


def passages(text: str) -> Iterator[str]:
    """Paragraphs, items of lists and rows of tables, each by itself."""
    for paragraph in re.split(r"\n\s*\n", text):
        yield from re.split(r"\n(?=\s*(?:[-*|]|\d+\.) ?)", paragraph)


def misplaced(page: Path, text: str, elsewhere: set[str]) -> Iterator[str]:
    """Options that the command beside them doesn't have: `code: option`.

    A span that begins with a command is held against it, another against the commands that its passage or the
    page is about; where there are none, some command must have it.

    elsewhere : options of scripts, and of all commands.
    """
    about = {name for name in COMMANDS if page.stem == name} | set(ABOUT.get(page_name(page), ()))
    for passage in passages(text):
        spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", passage)]
        first = {span: span.removeprefix("ecodetect ").split()[:1] for span in spans}
        named = {words[0] for words in first.values() if words and words[0] in COMMANDS}
        for span in spans:
            if span.startswith("python "):
                continue
            own = {word for word in first[span] if word in COMMANDS}
            for flag in FLAG.findall(span):
                commands = own or named | about
                there = set().union(*map(flags_of, commands)) if commands else elsewhere
                if flag not in there | {"--help"} and (own or flag not in elsewhere - ALL_FLAGS):
                    yield f"{span}: {flag}"


ALL_FLAGS = {flag for name in COMMANDS for flag in flags_of(name)}


@each_page
def test_flags_and_options_named_in_the_text_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    elsewhere = set(ALL_FLAGS)
    for script in (*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "recipes").glob("*.py")):
        elsewhere |= set(re.findall(r'"(--[a-z][a-z-]*)"', script.read_text(encoding="utf-8")))
    assert list(misplaced(page, text, elsewhere)) == []
    options = {name for detector in TABLE for name in describe(detector).options}
    options |= {
        field.name
        for kind in map(declared, TABLE)
        if isinstance(kind, Kind) and kind.training is not None
        for field in dataclasses.fields(kind.training)
    }
    for code in re.findall(r"`([^`\n]+)`", text):
        for name in re.findall(r"^(?:--set )?([a-z_]+)=(?!…)\S+$", code):
            assert name in options, code
    for command_name in re.findall(r"`ecodetect ([a-z]+)", text):
        # Said where it doesn't exist yet: "there is no `ecodetect evaluate` yet".
        assert command_name in COMMANDS or f"no `ecodetect {command_name}` yet" in text, command_name


@each_page
def test_python_blocks_import_what_there_is(page: Path) -> None:
    for block in blocks(page):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ecodetect"):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    assert hasattr(module, alias.name) or importlib.import_module(
                        f"{node.module}.{alias.name}"
                    )
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "ecodetect"
            ):
                assert node.attr in package.__all__


@each_page
def test_local_links_lead_somewhere(page: Path, generating: ModuleType) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        if re.match(r"[a-z]+://", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(generating.filled(target.read_text(encoding="utf-8"))), link
    trees = re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for entry in "\n".join(trees).splitlines():
        if entry and not entry.startswith(":"):
            assert (page.parent / f"{entry}.md").is_file(), entry


def anchors(text: str) -> Iterator[str]:
    """The anchors of a page as MyST and GitHub make them of its headings, and those that it sets."""
    yield from re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE)
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE):
        yield re.sub(r"[^\w\s-]", "", heading.lower()).strip().replace(" ", "-")


NAMED_FILE = re.compile(r"`((?:tests|docs|benchmarks|recipes|cli|ecodetect|sample_data|\.ci)/[\w./-]*)`")
NAMED_MODULE = re.compile(r"`([a-z_]+/[\w/]+\.py)`")
# What a command of the pages writes, and where scripts were before they moved.
NOT_THERE = {"sample_data/dryland.detections.geojson"}


@each_page
def test_files_named_in_the_text_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = {*NAMED_FILE.findall(text), *NAMED_MODULE.findall(text)} - NOT_THERE
    roots = (ROOT, ROOT / "ecodetect", page.parent)
    assert [name for name in sorted(named) if not any((root / name).exists() for root in roots)] == []


@each_page
def test_scripts_named_in_the_text_exist(page: Path) -> None:
    """`python -m benchmarks.SHELF.SCRIPT` and `python -m recipes.SCRIPT`, with a file each."""
    named = re.findall(r"python -m\s+((?:benchmarks|recipes)[\w.]+[a-z_])", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / f"{name.replace('.', '/')}.py").is_file()] == []


NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
COUNTED = {
    "commands": len(COMMANDS),
    "detectors": len(TABLE),
    "formats": len(formats.FORMATS),
    "models": len(choosing.known()),
}


@each_page
def test_numbers_of_models_detectors_and_formats_are_true(page: Path) -> None:
    """`the six models`, `all 13 detectors`: as many as there are."""
    number = "|".join((r"\d+", *NUMBERS))
    stated = re.compile(
        rf"\b(?:the|all|our|its|ships?|both)\s+({number})\s+(?:\w+\s+)?({'|'.join(COUNTED)})\b", re.I
    )
    text = page.read_text(encoding="utf-8")
    for word, noun in stated.findall(text):
        told = int(word) if word.isdigit() else NUMBERS.index(word.lower()) + 1
        assert told == COUNTED[noun.lower()], f"{word} {noun}"
    assert (
        re.findall(rf"\b(?:both ({'|'.join(COUNTED)})|ships none|no (?:trained )?model comes)\b", text, re.I)
        == []
    )


def table_names(text: str) -> list[str]:
    """The names that begin the rows of a page's tables: `` [`name`](page) ``."""
    return re.findall(r"^\| \[`([\w-]+)`\]\(", text, re.MULTILINE)


def test_every_model_has_a_row_where_models_are_listed() -> None:
    for page in (README, DOCS / "models" / "index.md", DOCS / "benchmarks.md"):
        assert set(table_names(page.read_text(encoding="utf-8"))) == set(choosing.known()), page_name(page)


def test_figures_of_models_stand_on_their_pages() -> None:
    """What README and the page of results say of a model is on its own page, perhaps with more digits."""
    rows = 0
    for page in (README, DOCS / "benchmarks.md"):
        for line in page.read_text(encoding="utf-8").splitlines():
            row = re.match(r"\| \[`[\w-]+`\]\(([^)]+)\)", line)
            if row is None:
                continue
            rows += 1
            own = (page.parent / row[1]).read_text(encoding="utf-8")
            count = re.search(r"([\d,]+) (?:trees|nuclei|animals|cells|shrubs) \|$", line)
            assert count is not None, line
            counts = [int(number.replace(",", "")) for number in re.findall(r"\b\d[\d,]*\b", own)]
            n = int(count[1].replace(",", ""))
            assert n in counts, line
            figure = re.search(r"\b0\.(\d{2,3})\b", line)
            assert figure is not None, line
            digits = len(figure[1])
            there = {f"{float(number):.{digits}f}" for number in re.findall(r"\b0\.\d{2,3}\b", own)}
            assert figure[0] in there, line
    assert rows == 2 * len(choosing.known())


PLAIN = re.compile(
    r"\b(?:by itself|by themselves|that is said|of all chance|worth a look|goe?s? on where|gone on with)\b"
    r"|(?:^|[.:!?] |\| |- |\*\* )Of (?!course)[a-z`]",
    re.MULTILINE,
)


@each_page
def test_sentences_are_plain_english(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    assert [found[0] for found in PLAIN.finditer(text)] == []


def test_set_up_lines_name_extras_that_there_are() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for page in PAGES:
        for extras in re.findall(r'pip install (?:-e )?"?\.\[([\w,]+)\]', page.read_text(encoding="utf-8")):
            for extra in extras.split(","):
                assert re.search(rf"^{extra} = \[", project, re.MULTILINE), f"{page_name(page)}: {extra}"


def test_every_command_has_a_section(generating: ModuleType) -> None:
    text = generating.filled((DOCS / "cli.md").read_text(encoding="utf-8"))
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == list(COMMANDS)


def test_every_detector_has_a_page_with_each_option_explained(generating: ModuleType) -> None:
    index = (DOCS / "detectors" / "index.md").read_text(encoding="utf-8")
    for name in TABLE:
        assert f"]({name}.md)" in index
        text = generating.filled((DOCS / "detectors" / f"{name}.md").read_text(encoding="utf-8"))
        for option, (_, meaning) in describe(name).options.items():
            assert meaning, f"{name}: {option} has no meaning in the docstring of Options"
            assert f"| `{option}` |" in text


def test_every_format_has_a_row_and_a_section() -> None:
    text = (DOCS / "formats.md").read_text(encoding="utf-8")
    rows = {row[0]: row for line in text.splitlines() if (row := cells(line)) and len(row) == 6}
    for entry in formats.FORMATS:
        titles = [title for title in rows if title.startswith(f"[{entry.title}](")]
        assert len(titles) == 1, f"{entry.title} has no row"
        row = rows[titles[0]]
        assert set(re.findall(r"`([^`]+)`", row[1])) == set(entry.reads), entry.title
        assert set(re.findall(r"`([^`]+)`", row[2])) == set(entry.writes), entry.title
        assert f"\n## {entry.title[0].upper()}{entry.title[1:]}\n" in text
    assert len(rows) == len(formats.FORMATS) + 2  # the header and the line under it


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []


def test_every_public_name_is_in_the_api_page() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    covered = set(re.findall(r"\w+", text))
    for name in package.__all__:
        module = getattr(package, name).__module__
        whole = re.search(rf"automodule:: {re.escape(module)}\n   :members:$", text, re.MULTILINE)
        assert name in covered or whole, name


def test_pictures_are_light() -> None:
    assert [path.name for path in (DOCS / "images").glob("*.png") if path.stat().st_size > 400_000] == []


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-q",
            "-W",
            "--keep-going",
            "-d",
            tmp_path / "trees",
            DOCS,
            tmp_path / "out",
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr

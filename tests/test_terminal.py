"""What the command line prints: text that stands there and does nothing, whatever files and names hold."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import unicodedata

import pytest
import source_tree
from ecodetect_cli.terminal import MARK, one_line, renew, say, say_json
from hypothesis import given
from hypothesis import strategies as st

WRITES = re.compile(
    r"print|input|traceback\.print_exc(eption)?|(.*\.)?(s?echo|prompt|confirm|print_help|pprint)"
)
STREAM = re.compile(r"sys\.(__)?std(out|err)(__)?")
MAY_WRITE = re.compile(
    r"\b(print|input|print_exc|print_exception|s?echo|prompt|confirm|print_help|pprint|sys)\b"
)
HOSTILE = "a\x1b[2Jb\x07\r\x9b31m\x7f\n\u202eevil\u2066\u200b\ufeff\u2028c\u2029\x85\ud800\0d"


def harmless(text: str) -> bool:
    """Whether a text does nothing to a terminal but stand there."""
    return all(char == "\n" or unicodedata.category(char)[0] not in "C" for char in text) and not any(
        char in "\u2028\u2029" for char in text
    )


def test_a_hostile_text_is_one_line() -> None:
    assert one_line(HOSTILE).isprintable()
    assert one_line(HOSTILE).startswith(f"a{MARK}[2Jb")
    assert "evil" in one_line(HOSTILE)


@given(st.text())
def test_any_text_is_one_line(text: str) -> None:
    assert one_line(text).isprintable()
    assert len(one_line(text).splitlines()) <= 1


def test_ordinary_texts_stay() -> None:
    for text in ("  name        Quercus robur", "Größe 3 m², 日本語, עברית", "", "🌳 é"):
        assert one_line(text) == text
    assert one_line("a\tb\u00a0c") == "a b c"


def test_a_line_has_an_end() -> None:
    assert len(one_line("x" * 1_000_000)) < 5000


def test_each_printed_line_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE, "second", to_stderr=True)
    say(HOSTILE)
    renew(HOSTILE, 0)
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 2
    assert shown.out.count("\n") == 1
    assert harmless(shown.out)
    assert harmless(shown.err.replace("\r", ""))


def test_json_keeps_each_character(capsys: pytest.CaptureFixture[str]) -> None:
    say_json({"label": HOSTILE, "é": "日本"})
    printed = capsys.readouterr().out
    assert harmless(printed)
    assert json.loads(printed) == {"label": HOSTILE, "é": "日本"}
    assert "日本" in printed


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_that_knows_few_characters(encoding: str) -> None:
    code = "from ecodetect_cli.terminal import say, say_json; say('日本 é ✓'); say_json({'a': '日本 é ✓'})"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=True,
    )
    line, rest = ran.stdout.decode(encoding).split("\n", 1)
    assert line.startswith("?? ")
    assert json.loads(rest) == {"a": "日本 é ✓"}


def test_nobody_prints_past_it() -> None:
    """In the command line only `terminal` writes; the library writes nothing at all."""
    alone = {"ecodetect.guarding.guarded", "ecodetect.web.relay"}  # processes of their own
    found = set()
    for module, (_, source) in source_tree.modules().items():
        if module == "ecodetect_cli.terminal" or module in alone or not MAY_WRITE.search(source):
            continue
        for node in ast.walk(ast.parse(source)):
            is_call = isinstance(node, ast.Call) and WRITES.fullmatch(ast.unparse(node.func))
            if is_call or (isinstance(node, ast.Attribute) and STREAM.fullmatch(ast.unparse(node))):
                found.add(f"{module} {ast.unparse(node.func if isinstance(node, ast.Call) else node)}")
    assert found == {
        f"ecodetect_cli.{name} sys.stderr" for name in ("classify", "scan", "train")
    }  # .isatty()


def test_what_libraries_print_in_c_stays_away() -> None:
    code = """
import os, sys
from ecodetect_cli.terminal import alone, say
with alone():
    os.write(2, b'chatter'); os.write(1, b'chatter')
    say('said'); say('said', to_stderr=True)
os.write(2, b'after'); print('end')
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "said\nend\n"
    assert ran.stderr == "said\nafter"


def test_who_stops_reading_stops_nothing() -> None:
    code = "from ecodetect_cli.main import main; import sys; sys.exit(main())"
    ran = subprocess.Popen(
        [sys.executable, "-c", code, "models"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert ran.stdout is not None
    assert ran.stderr is not None
    ran.stdout.close()
    assert ran.stderr.read() == b""
    assert ran.wait() == 0
    ran.stderr.close()

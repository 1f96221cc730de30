"""Spoilt annotation files give a layer or one sentence: never another exception, never a hang."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from annotation_files import GRID, IMAGE, TEXTS, write_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecodetect.errors import LayerError
from ecodetect.formats import files as formats
from ecodetect.grid import Grid
from ecodetect.layer import Layer

NAMES = [*TEXTS, "labels.tif", "labels.png"]
# What breaks readers more often than chance does.
WORDS = [
    *(b"-1", b"0", b"1e999", b"nan", b"NaN", b"-Infinity", b"99999999999999999999", b"1_0", b"null", b"true"),
    *(b"[]", b"{}", b'""', b"'", b'"', b",", b";", b"\t", b"\n", b"\r", b"\0", b"\xff", b"\xfe\xff", b"\xc3"),
    *(b"<", b">", b"&", b"<!DOCTYPE a [<!ENTITY e 'e'>]>", b"&e;", b"[[[[[[[[", b"../", b"\xed\xb2\x80"),
    *(b"POINT EMPTY", b"POINT (nan nan)", b"GEOMETRYCOLLECTION (POINT (1 1))"),
]

Edit = tuple[str, int, int, bytes]
Frame = tuple[Grid | None, str | None]
FRAMES = st.sampled_from([(GRID, IMAGE), (GRID, None), (None, None)])
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["overwrite", "insert", "delete", "repeat", "word", "word"]),
        st.integers(0, 4000),
        st.integers(1, 60),
        st.one_of(st.sampled_from(WORDS), st.binary(min_size=1, max_size=6)),
    ),
    min_size=1,
    max_size=5,
)


def spoilt(data: bytes, edits: list[Edit]) -> bytes:
    for kind, place, length, what in edits:
        start = place % (len(data) + 1)
        words = list(re.finditer(rb"[-+.\w]+", data)) if kind == "word" else []
        if words:  # one number or name, so that the file stays well-formed and the fault goes deeper
            start, end = words[place % len(words)].span()
            length = end - start
        part = data[start : start + length]
        new = {"insert": what + part, "delete": b"", "repeat": part * 3}.get(kind, what)
        data = data[:start] + new + data[start + length :]
    return data


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("good"))


def check(path: Path, data: bytes, frame: Frame) -> None:
    spoilt_path = path.with_name(f"spoilt_{path.name}")
    spoilt_path.write_bytes(data)
    grid, image = frame
    with contextlib.suppress(LayerError):
        assert isinstance(formats.read(spoilt_path, grid=grid, image=image), Layer)


@pytest.mark.parametrize("name", NAMES)
def test_good_files_are_read(good: dict[str, Path], name: str) -> None:
    assert len(formats.read(good[name], grid=GRID, image=IMAGE)) > 0


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS, frame=FRAMES)
def test_spoilt_files(good: dict[str, Path], name: str, edits: list[Edit], frame: Frame) -> None:
    check(good[name], spoilt(good[name].read_bytes(), edits), frame)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS, frame=FRAMES)
def test_spoilt_files_for_long(good: dict[str, Path], name: str, edits: list[Edit], frame: Frame) -> None:
    check(good[name], spoilt(good[name].read_bytes(), edits), frame)


@pytest.mark.parametrize("name", NAMES)
def test_files_cut_anywhere(good: dict[str, Path], name: str) -> None:
    data = good[name].read_bytes()
    for length in range(0, len(data), max(1, len(data) // 25)):
        check(good[name], data[:length], (GRID, IMAGE))

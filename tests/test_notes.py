"""Notes: what a script can go by, and that the page of codes is complete."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import source_tree

from ecodetect.notes import Note, doubts, merged

ROW = re.compile(r"^\| `([a-z0-9-]+)` \| (.+?) \|", re.MULTILINE)
KINDS = ("info", "choice", "doubt")


def made_in(source: str) -> Iterator[tuple[str, str | None]]:
    """Code and kind of each note that a module makes; None where the call doesn't say the kind."""
    for call in ast.walk(ast.parse(source)) if re.search(r"[Nn]ote\(", source) else ():
        if not isinstance(call, ast.Call) or not call.args or not isinstance(call.args[0], ast.Constant):
            continue
        name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
        if name not in ("Note", "note"):  # the class, and what gathers notes of one file
            continue
        kinds = [word.value for word in call.keywords if word.arg == "kind"]
        kinds += call.args[2:3] if name == "note" else []
        default = "info" if name == "Note" else None
        yield call.args[0].value, ast.literal_eval(kinds[0]) if kinds else default


def test_a_note_names_what_it_is_about() -> None:
    note = Note("no-crs", "it has no CRS.", kind="doubt")
    assert str(note) == "it has no CRS."
    assert str(note.of("a.tif")) == "a.tif: it has no CRS."
    assert note.of("a.tif").of("b.tif").about == "a.tif"
    assert note.of("a.tif").to_json() == {
        "code": "no-crs", "kind": "doubt", "about": "a.tif", "text": "it has no CRS."
    }  # fmt: skip


def test_what_is_said_of_several_files_is_said_once() -> None:
    note, other = Note("no-crs", "it has no CRS."), Note("other", "it has no CRS.")
    said = merged([note.of("a.tif"), note.of("b.tif"), other.of("c.tif"), note.of("a.tif"), note.of("d.tif")])
    assert [str(each) for each in said] == ["a.tif and 2 more: it has no CRS.", "c.tif: it has no CRS."]
    assert [each.code for each in said] == ["no-crs", "other"]


def test_doubts_are_those_of_that_kind() -> None:
    notes = [Note("a", "a", kind="doubt"), Note("b", "b", kind="choice"), Note("c", "c")]
    assert [note.code for note in doubts(notes)] == ["a"]


def test_the_page_lists_every_code_with_its_kind() -> None:
    made: dict[str, set[str]] = {}
    for module, (_, source) in source_tree.modules().items():
        for code, kind in made_in(source):
            assert re.fullmatch(r"[a-z][a-z0-9-]*", code), f"{module}: {code}"
            made.setdefault(code, set()).update({kind} if kind else ())
    page = (source_tree.ROOT / "docs/notes.md").read_text(encoding="utf-8")
    listed = {code: set(kinds.split(", ")) for code, kinds in ROW.findall(page)}
    assert sorted(made) == sorted(listed)
    for code, kinds in made.items():
        assert kinds <= listed[code] <= set(KINDS), code
    assert sorted(listed) == list(listed), "in the order of the alphabet"

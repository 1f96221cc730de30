"""A form for QGIS (QML): names of fields, what may be chosen in them, what a new feature begins with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement


@dataclass(frozen=True, slots=True)
class FormField:
    """A field as a form shows it.

    alias : its name for people.
    choices : what may be chosen; empty: a text or a number is typed.
    default : value of a new feature, as an expression of QGIS; "" for none.
    is_editable : whether a person fills it in.
    is_hidden : whether the form leaves it out.
    """

    name: str
    alias: str = ""
    choices: tuple[str, ...] = ()
    default: str = ""
    is_editable: bool = True
    is_hidden: bool = False


def text_of(value: str) -> str:
    """A text as an expression of QGIS."""
    return "'" + value.replace("'", "''") + "'"


def add_form(root: Element, fields: Sequence[FormField]) -> None:
    """Put a form into the root of a style; `fields` are those of the layer, in its order, `fid` first."""
    configured = SubElement(root, "fieldConfiguration")
    aliases, defaults = SubElement(root, "aliases"), SubElement(root, "defaults")
    editable = SubElement(root, "editable")
    for number, field in enumerate(fields):
        entry = SubElement(configured, "field", name=field.name, configurationFlags="None")
        kind = "ValueMap" if field.choices else "Hidden" if field.is_hidden else "TextEdit"
        config = SubElement(SubElement(entry, "editWidget", type=kind), "config")
        options = SubElement(config, "Option", type="Map")
        if field.choices:
            choices = SubElement(options, "Option", name="map", type="List")
            for choice in field.choices:
                pair = SubElement(choices, "Option", type="Map")
                SubElement(pair, "Option", name=choice, type="QString", value=choice)
        SubElement(aliases, "alias", field=field.name, index=str(number), name=field.alias)
        SubElement(defaults, "default", field=field.name, expression=field.default, applyOnUpdate="0")
        SubElement(editable, "field", name=field.name, editable=str(int(field.is_editable)))
    SubElement(root, "editorlayout").text = "generatedlayout"

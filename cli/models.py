"""`ecodetect models`: list models and detectors."""

from __future__ import annotations

import click

from .terminal import say, say_json


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def models(name: str | None, as_json: bool) -> int:
    """List models and detectors, or the options of one (NAME).

    \b
    Examples:
      ecodetect models
      ecodetect models threshold
    """

    from ecodetect.detectors.table import describe, is_learned, known
    from ecodetect.models import choosing as shipped

    cards = shipped.known()
    if name is None:
        table = {each: card.description for each, card in cards.items()}
        table |= {each: describe(each).purpose for each in sorted(known())}
        if as_json:
            say_json(table)
            return 0
        for each, card in cards.items():
            say(f"{each:12} {card.description} Bands {', '.join(card.bands)}.")
        for each in sorted(known()):
            trained = " Needs training first." if is_learned(each) else ""
            say(f"{each:12} {table[each]}{trained}")
        without = "" if cards else "No trained model comes with this version. "
        say("", f"{without}`ecodetect models NAME` lists the options of one.")
        return 0
    card_of = cards.get(name)
    about = describe(name if card_of is None else card_of.detector)
    purpose = about.purpose if card_of is None else card_of.description
    if as_json:
        say_json({"name": name, "purpose": purpose, "options": about.options})
        return 0
    say(f"{name}: {purpose}", "", "Options (--set NAME=VALUE), with their defaults:")
    for option, (default, meaning) in about.options.items():
        say(f"  {option + '=' + default:24} {meaning}")
    return 0

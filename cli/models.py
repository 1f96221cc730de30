"""`ecodetect models`: list the models and detectors there are."""

from __future__ import annotations

import click


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def models(name: str | None, as_json: bool) -> int:
    """List the models and detectors there are, or the options of one (NAME)."""
    import json

    from ecodetect.detectors import describe, known

    if name is None:
        table = {each: describe(each).purpose for each in sorted(known())}
        if as_json:
            click.echo(json.dumps(table, indent=1))
            return 0
        for each, purpose in table.items():
            click.echo(f"{each:12} {purpose}")
        click.echo(
            "\nNo trained model comes with this version. `ecodetect models NAME` lists the options of one."
        )
        return 0
    about = describe(name)
    if as_json:
        click.echo(json.dumps({"name": name, "purpose": about.purpose, "options": about.options}, indent=1))
        return 0
    click.echo(f"{name}: {about.purpose}\n\nOptions (--set NAME=VALUE), with their defaults:")
    for option, (default, meaning) in about.options.items():
        click.echo(f"  {option + '=' + default:24} {meaning}")
    return 0

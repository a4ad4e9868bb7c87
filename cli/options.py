"""Options that several verbs share."""

from __future__ import annotations

import click

overrides = click.option(
    "-s", "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value of the spec; repeatable."
)

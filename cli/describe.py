"""metarun describe"""

from __future__ import annotations

import shutil
import textwrap

import click

from .options import examples


@click.command(name="describe", epilog=examples("describe maml", "describe train.shot"))
@click.argument("name", default="")
def command(name: str) -> None:
    """Explain NAME: its type, range and default, and YAML that can be copied into a spec.

    \b
    NAME is one of
      a section or key of a spec       train, train.shot, protocol, seeds
      an algorithm, network, dataset   maml, conv4, omniglot, maml.inner_lr
      a key of all that have it        algorithm.inner_lr, dataset.path
      all keys of a spec               spec

    Without NAME, list all of them.
    """
    from ..experiments.config.reference import page

    found = page(name)
    width = max(60, min(shutil.get_terminal_size().columns, 110))  # below, a long name leaves no room for its text
    if found.text:
        click.echo(textwrap.fill(f"{name}: {found.text}", width) + "\n")
    for heading, entries in found.lists.items():
        click.echo(f"{heading}:")
        column = max(len(each) for each, _ in entries) + 4
        for each, text in entries:
            click.echo(_indented(text, width, f"  {each}".ljust(column), " " * column))
        click.echo()
    for option in found.options:
        click.echo(_indented(f"{option.key}: {option.type}, {option.default}", width, "  ", "    "))
        if option.description:
            click.echo(_indented(option.description, width, " " * 6, " " * 6))
        click.echo()
    if found.lists:
        click.echo("`metarun describe NAME` explains one of them, for example maml, train or train.shot.\n")
    click.echo("In a spec:\n")
    click.echo(textwrap.indent(found.snippet, "  "), nl=False)


def _indented(text: str, width: int, first: str, later: str) -> str:
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=later)

"""metarun check-plugin"""

from __future__ import annotations

import sys

import click

from .options import examples, overrides


@click.command(
    name="check-plugin", epilog=examples("check-plugin protonet", "check-plugin imagefolder -s dataset.path=photos")
)
@click.argument("name")
@overrides
def command(name: str, overrides: tuple[str, ...]) -> None:
    """Check that an algorithm, a network or a dataset, such as one of another package, does what all must do.

    NAME is tried in a small experiment: dtypes, the protocol, resumed runs, several workers, equal bits. -s changes the
    experiment. The exit code is 1 if something is wrong.
    """
    from ..experiments.system.startup import import_tensorflow

    import_tensorflow()
    from ..experiments.training.conformance import examine, example

    failed = False
    for requirement, problem in examine(example(name, overrides)):
        failed |= problem is not None
        click.echo(f"{'FAILS' if problem else 'ok':<7}{requirement}{f': {problem}' if problem else ''}")
    sys.exit(1 if failed else 0)

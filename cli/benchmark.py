"""metarun benchmark"""

from __future__ import annotations

import time

import click

from .options import overrides


@click.command(name="benchmark")
@click.argument("spec")
@overrides
@click.option("--steps", type=click.IntRange(4), help="Training steps to measure; default: for about eight seconds.")
@click.option("--format", "form", type=click.Choice(["text", "json", "csv"]), default="text", show_default=True)
def command(spec: str, overrides: tuple[str, ...], steps: int | None, form: str) -> None:
    """How fast SPEC trains here, how much of the machine that uses, how long the experiment takes; keeps nothing."""
    from ..experiments.config.load import load

    started = time.perf_counter()
    experiment = load(spec, overrides).experiment
    from ..experiments.system.startup import import_tensorflow

    import_tensorflow()
    from ..experiments.training.benchmark import benchmark, render

    click.echo(render(benchmark(experiment, steps, time.perf_counter() - started), form))

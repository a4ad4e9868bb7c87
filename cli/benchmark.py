"""metarun benchmark"""

from __future__ import annotations

import time

import click

from .options import examples, formats, overrides


@click.command(
    name="benchmark",
    epilog=examples("benchmark quickstart/maml", "benchmark omniglot/maml -s train.meta_batch=16 --steps 20"),
)
@click.argument("spec")
@overrides
@click.option(
    "--steps", type=click.IntRange(4), help="Training steps to measure; default: about eight seconds of them."
)
@formats("text", "json", "csv")
def command(spec: str, overrides: tuple[str, ...], steps: int | None, form: str) -> None:
    """Measure how fast SPEC trains on this machine.

    Prints the time of a step, the share of the machine that it uses, and the hours of the whole experiment. Keeps
    nothing.
    """
    from ..experiments.config.load import load

    started = time.perf_counter()
    experiment = load(spec, overrides).experiment
    from ..experiments.system.startup import import_tensorflow

    import_tensorflow()
    from ..experiments.training.benchmark import benchmark, render

    click.echo(render(benchmark(experiment, steps, time.perf_counter() - started), form))

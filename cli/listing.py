"""metarun list"""

from __future__ import annotations

import click


@click.command(name="list")
@click.argument("what", type=click.Choice(["algorithms", "datasets", "specs"]))
def command(what: str) -> None:
    """List the algorithms, the datasets, or the specs that ship, each with a line about it."""
    from ..algorithms import ALGORITHMS
    from ..datasets import DATASETS

    if what == "specs":
        entries = _specs()
    else:
        models = {name: entry.options for name, entry in ALGORITHMS.items()} if what == "algorithms" else DATASETS
        entries = [(name, (model.__doc__ or "").strip()) for name, model in models.items()]
    width = max(len(name) for name, _ in entries)
    for name, meaning in entries:
        click.echo(f"{name:<{width}}  {meaning}")


def _specs() -> list[tuple[str, str]]:
    from ..experiments.load import load, shipped_specs

    entries = []
    for name in shipped_specs():
        spec = load(name).experiment
        test = spec.test
        tasks = f"{test.shot}-shot" if spec.dataset.name == "sinusoid" else f"{test.way}-way {test.shot}-shot"
        entries.append((name, f"{spec.algorithm.name} on {spec.dataset.name}, {tasks}, {spec.train.steps} steps"))
    return entries

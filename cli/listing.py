"""metarun list"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..datasets.errors import counted
from .options import examples

if TYPE_CHECKING:
    from ..experiments.config.experiment import Experiment


@click.command(name="list", epilog=examples("list specs", "list tables"))
@click.argument("what", type=click.Choice(["algorithms", "datasets", "specs", "tables"]))
def command(what: str) -> None:
    """List the algorithms, the datasets, or the specs or papers' tables that ship, one line for each."""
    from ..algorithms import ALGORITHMS
    from ..datasets import DATASETS

    if what == "specs":
        entries = _specs()
    elif what == "tables":
        entries = _tables()
    else:
        models = {name: entry.options for name, entry in ALGORITHMS.items()} if what == "algorithms" else DATASETS
        entries = [(name, (model.__doc__ or "").strip()) for name, model in models.items()]
    width = max(len(name) for name, _ in entries)
    for name, meaning in entries:
        click.echo(f"{name:<{width}}  {meaning}")


def _tables() -> list[tuple[str, str]]:
    from ..experiments.papers.definition import load_table, shipped_tables

    tables = {name: load_table(name) for name in shipped_tables()}
    return [(name, f"{table.title}; {counted(len(table.cells), 'cell')}") for name, table in tables.items()]


def _specs() -> list[tuple[str, str]]:
    from ..experiments.config.load import load, shipped_specs

    entries = []
    for name in shipped_specs():
        spec = load(name).experiment
        steps = f", {counted(spec.train.steps, 'step')}" if spec.train.steps else ""
        entries.append((name, f"{spec.algorithm.name} on {spec.dataset.name}, {_tasks(spec)}{steps}"))
    return entries


def _tasks(spec: Experiment) -> str:
    """Describe a test task in a few words, such as 5-way 1-shot."""
    if spec.kind.plays_trials:
        values = spec.dataset.model_dump()
        return ", ".join(f"{values[each]} {each}" for each in ("arms", "pulls", "episodes") if each in values)
    return f"{spec.test.shot}-shot" if spec.dataset.regression else f"{spec.test.way}-way {spec.test.shot}-shot"

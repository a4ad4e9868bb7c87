"""metarun submit"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import cluster_options, examples, out_folder, overrides, seeds, selection
from .selecting import refuse, submit_search
from .submitting import submit


@click.command(
    name="submit",
    epilog=examples(
        "submit quickstart/maml -s algorithm.inner_lr=0.2,0.4 --seeds 0-2 --executor local",
        "submit omniglot/maml --seeds 0-4 --partition gpu --gpus 1 --time 4:00:00 --dry-run",
    ),
)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@overrides
@seeds
@selection
@cluster_options("slurm")
@click.option("--dry-run", is_flag=True, help="List the runs and what sbatch would be asked for; submit nothing.")
@click.option(
    "--fresh",
    is_flag=True,
    help="Train again what is there; it is renamed to seed-<n>~1, never lost. Without it a stopped run is resumed.",
)
@out_folder("Folder of the runs, of results.csv and of the table; all nodes must see it. Slurm takes no % in its path.")
def command(
    specs: tuple[str, ...],
    overrides: tuple[str, ...],
    seeds: list[int],
    select: bool,
    draws: int | None,
    halving: bool,
    executor: str,
    dry_run: bool,
    fresh: bool,
    out: Path,
    **settings: Any,
) -> None:
    """Train each SPEC with each combination of values (-s KEY=A,B,C) and each seed.

    On a cluster the runs are one job array, and a last job merges the results and writes the table. With --executor
    local they are parallel processes of this machine, and the table is printed at the end.

    With --select, the settings of one SPEC are chosen by validation, and only the chosen ones are tested: on a cluster
    by the last job, which then asks for as much as a run.

    The same command again submits only what is missing, failed or interrupted. It does not touch what is queued or
    running. A value that holds a comma needs quotes or brackets.
    """
    from ..experiments.runs.sweep import grid
    from ..experiments.selection.search import search_of

    refuse(select, draws, halving, fresh)
    if select:
        submit_search(search_of(specs, overrides, seeds, out, draws or 0, halving), executor, settings, dry_run)
        return
    submit(grid(specs, overrides, seeds, out), out, executor, settings, fresh=fresh, dry_run=dry_run)

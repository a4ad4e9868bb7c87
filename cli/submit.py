"""metarun submit"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import cluster_options, overrides
from .submitting import submit

if TYPE_CHECKING:
    pass


@click.command(name="submit")
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@overrides
@click.option("--seeds", metavar="0-4", help="Instead of the specs' seeds: 0-4 or 0,2,5.")
@cluster_options("slurm")
@click.option("--dry-run", is_flag=True, help="List the runs and what sbatch would be asked for; submit nothing.")
@click.option(
    "--fresh",
    is_flag=True,
    help="Train again what is there already; it is renamed to seed-<n>~1. Without it a stopped run goes on.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder of the runs, of results.csv and of the table; the nodes must see it.",
)
def command(
    specs: tuple[str, ...],
    overrides: tuple[str, ...],
    seeds: str | None,
    executor: str,
    dry_run: bool,
    fresh: bool,
    out: Path,
    **told: Any,
) -> None:
    """Train each SPEC with each combination of values (-s KEY=A,B,C) and each seed: one job array, and a last job that
    merges the results and writes the table.

    The same command again submits only what is missing, failed or interrupted; what is queued or running is left alone.
    """
    from ..experiments.runs.sweep import grid, parse_seeds

    try:
        chosen = parse_seeds(seeds) if seeds is not None else []
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--seeds") from None
    submit(grid(specs, overrides, chosen, out), out, executor, told, fresh=fresh, dry_run=dry_run)

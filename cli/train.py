"""metarun train"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import click

from .errors import report
from .options import offline, overrides


@click.command(name="train")
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@overrides
@click.option(
    "--seed", "seeds", multiple=True, type=click.IntRange(0, 2**31 - 1), help="Instead of the spec's seeds; repeatable."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder of the runs: OUT/<experiment>/seed-<n>.",
)
@offline
@click.option(
    "--fresh",
    is_flag=True,
    help="Start again; what is there is renamed to seed-<n>~1, never lost. Without it a stopped run goes on.",
)
def command(specs: tuple[str, ...], overrides: tuple[str, ...], seeds: tuple[int, ...], out: Path, fresh: bool) -> None:
    """Train and test each SPEC, a YAML file or the name of a spec that ships, once for each seed.

    The same command again goes on where an interrupted run stopped, and skips what is finished. A longer training under
    another name goes on from a shorter one of the same spec in OUT. A run that fails does not stop those after it.

    Many processes train one run together, each with a part of every meta-batch, where TF_CONFIG names them, or where
    one `srun` starts them; then a run that fails ends the command.
    """
    from ..experiments.config.checks import unshareable
    from ..experiments.config.load import load, told_apart
    from ..experiments.errors import SpecError
    from ..experiments.jobs.rendezvous import find

    loaded, problems = [], []
    for spec in specs:
        try:
            loaded.append(load(spec, overrides))
        except SpecError as error:
            problems.extend(told_apart(spec, error.problems, specs))
    names = [each.experiment.name for each in loaded]
    problems += [
        f"two specs have the name {name}: rename one" for name in dict.fromkeys(names) if names.count(name) > 1
    ]
    cluster = find()
    if cluster:
        reasons = {each.experiment.name: unshareable(each.experiment, len(cluster.addresses)) for each in loaded}
        problems += [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    if problems:
        raise SpecError(problems)
    from ..experiments.system.startup import import_tensorflow, silence_libraries

    import_tensorflow()
    if cluster:
        silence_libraries()  # of a lost worker each of the others would print a page
    from ..algorithms.workers import ALONE, join
    from ..experiments.errors import Interrupted
    from ..experiments.reports.table import lines_of, render
    from ..experiments.runs.rows import as_frame, merge
    from ..experiments.runs.run import Run
    from ..experiments.training.followers import follow
    from ..experiments.training.train import train

    runs = [
        Run.at(out, each.experiment, seed) for each in loaded for seed in dict.fromkeys(seeds) or each.experiment.seeds
    ]
    workers = join(cluster.addresses, cluster.index) if cluster else ALONE
    if workers.index > 0:
        try:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # progress is the chief's
                for one in runs:
                    follow(one, workers)
        except Interrupted:
            sys.exit(130)
        return
    if not fresh:
        for one in runs:
            one.refuse_another_spec()  # now, not after the hours of the runs before it
    rows, failed = [], {}
    try:
        for one in runs:
            directory = one.directory
            if directory.finished and not fresh:
                click.echo(f"{directory.path} is finished; --fresh trains it again", err=True)
            try:
                rows.append(train(one, fresh, workers))
                merge(out)
            except Interrupted:
                later = [str(other.directory.path) for other in runs[runs.index(one) + 1 :]]
                if fresh and later:
                    click.echo(f"not begun yet, so give these --fresh again: {', '.join(later)}", err=True)
                raise
            except Exception as error:  # the other runs may still succeed; all are told at the end
                failed[directory.path] = error
                if workers.count > 1:
                    break
                if one is not runs[-1]:
                    click.echo(f"{directory.path} failed; going on with the others", err=True)
    finally:
        if rows:
            click.echo(render(lines_of(as_frame(rows)), "text"))
            click.echo(f"rows: {out / 'results.csv'}", err=True)
        for path, error in failed.items():
            report(error, "" if str(path) in str(error) else f"{path}: ")
    if failed:
        sys.exit(1)

"""metarun verify"""

from __future__ import annotations

from pathlib import Path

import click

from .options import examples


@click.command(name="verify", epilog=examples("verify runs/omniglot-maml/seed-0", "verify maml.zip --episodes 100"))
@click.argument("run", type=click.Path(exists=True, path_type=Path), metavar="RUN|FILE")
@click.option("--episodes", type=click.IntRange(1), default=20, show_default=True, help="Number of episodes.")
def command(run: Path, episodes: int) -> None:
    """Test the first episodes of a finished RUN, or of a FILE of `metarun pack`, again.

    Their values must be those in episodes.csv: bit for bit where the run was tested on a machine of this kind
    (versions, code, device, processor, oneDNN, threads), otherwise within a tolerance that is printed. Before that the
    row is compared with the spec, the digest of the weights, episodes.csv and calibration.csv. Changes nothing. If
    anything differs, the exit code is 1.
    """
    from ..experiments.runs.archive import checked, opened
    from ..experiments.system.startup import import_tensorflow

    with opened(run) as directory:
        checked(directory)  # raises before the seconds that TensorFlow takes to import
        import_tensorflow()
        from ..experiments.evaluation.verify import verify

        done = verify(directory, episodes)
    click.echo(f"{run}: {done.tested} of {done.episodes} episodes tested again, equal {done.how}")

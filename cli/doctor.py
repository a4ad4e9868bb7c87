"""metarun doctor"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .options import examples, out_folder


@click.command(name="doctor", epilog=examples("doctor", "doctor --out /scratch/runs"))
@out_folder("Folder where runs would be written.")
def command(out: Path) -> None:
    """Print what metarun finds on this machine: versions, devices, threads, memory, disks, Slurm.

    The exit code is 1 if something that the machine has cannot be used, such as a GPU that TensorFlow does not see.
    Put the output into a report of an error.
    """
    from ..experiments.doctor import examine

    problems = 0
    for finding in examine(out):
        click.echo(f"{finding.name:<12}{finding.state}")
        if finding.problem:
            problems += 1
            click.echo(f"{'':<12}problem: {finding.problem}")
    sys.exit(1 if problems else 0)

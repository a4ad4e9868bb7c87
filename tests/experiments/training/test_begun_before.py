"""A run that an earlier version began is resumed by this one.

The folder begun_before/ was left by commit e69501f, stopped by SIGTERM after step 10 of 60.
"""

import csv
import shutil
from pathlib import Path

import pytest

from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run
from metarun.experiments.training.train import train

BEFORE = Path(__file__).parent / "begun_before"


def rows_of(directory):
    with directory.metrics.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_of_an_earlier_version_is_resumed(tmp_path, cache_folder):
    """Reject a version that trains it again from step 0, or that takes its spec for another one."""
    directory = RunDirectory(tmp_path / "begun-before-the-rooms" / "seed-0")
    shutil.copytree(BEFORE, directory.path)
    experiment = load(directory.spec).experiment
    before = rows_of(directory)
    assert directory.step == 10 and experiment.digest == "87d22718244154c0"
    row = train(Run(experiment, 0, directory))
    for old, now in zip(before, rows_of(directory), strict=False):  # seconds too: these steps were not done again
        assert {name: now[name] for name in old} == old
    assert row.train_steps == 60 and row.spec_digest == experiment.digest
    assert (row.episodes_digest, row.content_digest) == ("64fffcfece5768c5", "01fb6178a08f340b")


def test_not_by_another_spec(tmp_path, cache_folder):
    directory = RunDirectory(tmp_path / "begun-before-the-rooms" / "seed-0")
    shutil.copytree(BEFORE, directory.path)
    other = load(directory.spec, ["optimizer.learning_rate=0.5"]).experiment
    with pytest.raises(RunError, match="of another spec"):
        train(Run(other, 0, directory))

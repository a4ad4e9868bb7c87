"""The package of docs/examples/backbone, and one with networks that are mistaken, are installed."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packages import install, install_project, run_with
from shipped import SHIPPED

pytestmark = pytest.mark.usefixtures("cache_folder")
BACKBONE = Path(__file__).parents[1] / "docs" / "examples" / "backbone"
SPEC = BACKBONE / "backbone.yaml"
MISTAKEN = '''
from typing import Literal

from metarun.datasets.options import Options


class Misnamed(Options):
    name: Literal["other"] = "other"

    def build(self, input_shape, outputs, precision, seed):
        return None


class NoBuild(Options):
    name: Literal["no_build"] = "no_build"


class Failing(Options):
    """A network whose weights are not there."""

    name: Literal["failing"] = "failing"

    def build(self, input_shape, outputs, precision, seed):
        raise FileNotFoundError("no weights.h5")
'''
MISTAKEN_ENTRY_POINTS = """[metarun.networks]
misnamed = mistaken:Misnamed
no_build = mistaken:NoBuild
conv4 = mistaken:Failing
failing = mistaken:Failing
"""
DIGESTS = """
import json, sys
from metarun.experiments.config.load import load, shipped_specs
print(json.dumps({name: load(name).experiment.digest for name in shipped_specs()}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = install_project(tmp_path_factory.mktemp("site"), BACKBONE)
    return install(folder, "mistaken", MISTAKEN_ENTRY_POINTS, {"mistaken.py": MISTAKEN})


SHORT = (
    "-s",
    "network={name: backbone, width: 8, depth: 2}",
    "-s",
    "train.log_every=1",
    "-s",
    "validation=null",
    "-s",
    "test.episodes=4",
)


def test_a_network_of_another_package_trains(installed, tmp_path):
    done = run_with(installed, "train", SPEC, *SHORT, "-s", "train.steps=2", cwd=tmp_path)
    row = json.loads((tmp_path / "runs/backbone/seed-0/result.json").read_text())
    assert (row["algorithm"], row["dataset"], row["train_steps"]) == ("protonet", "glyphs", 2)
    assert row["parameters"] == 9 * 8 + 9 * 8 * 8 + 2 * 2 * 8
    assert 20 < 100 * row["mean"] <= 100
    for name, wrong in (
        ("misnamed", "its options lack"), ("no_build", "it is no subclass of"), ("conv4", "the name is taken"),
    ):  # fmt: skip
        assert f"metarun.networks {name} of mistaken" in done.stderr and f"is left out: {wrong}" in done.stderr


@pytest.mark.slow  # the requirements of check-plugin try it for every learner
def test_a_resumed_run_has_the_same_bits(installed, tmp_path):
    """Check that a shorter training is the beginning of a longer one, the moving averages of the Keras model
    included."""
    rows = []
    for folder, name, steps in (("resumed", "short", 2), ("resumed", "long", 4), ("whole", "long", 4)):
        more = ("-s", f"train.steps={steps}", "-s", f"name={name}", "--out", folder)
        done = run_with(installed, "train", SPEC, *SHORT, *more, cwd=tmp_path)
        assert (" continues " in done.stderr) == (folder == "resumed" and name == "long")
        with open(tmp_path / folder / name / "seed-0" / "episodes.csv", newline="") as file:
            rows.append(list(csv.DictReader(file)))
    assert rows[1] == rows[2] != rows[0]


def test_a_network_of_another_package_is_described_and_checked(installed, tmp_path):
    told = run_with(installed, "describe", "backbone", cwd=tmp_path).stdout
    assert (
        "Build strided convolutions with batch norm and ReLU." in told
        and "width: whole number (>= 1), default 32" in told
    )
    assert "backbone" in run_with(installed, "describe", "network", cwd=tmp_path).stdout
    schema = json.loads(run_with(installed, "schema", cwd=tmp_path).stdout)
    assert "Backbone" in schema["$defs"]
    for change, message in (
        ("network.width=0", "network.width: expected a number at least 1, got 0"),
        ("network.stride=3", "network.stride: unknown key"),
        ("network={name: backbon}", "unknown network 'backbon'; did you mean backbone?"),
    ):
        done = run_with(installed, "validate", SPEC, "-s", change, cwd=tmp_path, code=2)
        assert message in done.stderr, done.stderr


def test_a_network_that_does_not_build_is_told_in_one_line(installed, tmp_path):
    done = run_with(installed, "train", SPEC, *SHORT[2:], "-s", "network={name: failing}", cwd=tmp_path, code=1)
    lines = [line for line in done.stderr.splitlines() if "warning: " not in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].endswith("error: network failing of mistaken: FileNotFoundError: no weights.h5")


def test_specs_without_it_keep_their_digests(installed):
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", DIGESTS], capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout) == {name: spec.digest for name, spec in SHIPPED.items()}

"""Figures are drawn from the files of runs."""

import shutil
import subprocess
import sys

import pytest

from metarun.experiments.errors import RunError
from metarun.experiments.load import load
from metarun.experiments.plot import draw_all, runs_below
from metarun.experiments.run import run
from metarun.experiments.rundir import RunDirectory

RL2 = """
name: learner
algorithm: {name: rl2, minibatch: 16}
network: {name: gru, units: 8}
dataset: {name: bandits, arms: 3, pulls: 6}
train: {meta_batch: 16, steps: 2}
validation: {episodes: 10, every: 1}
test: {episodes: 20}
jit: off
"""
RANDOM = """
name: chance
algorithm: {name: random}
dataset: {name: bandits, arms: 3, pulls: 6}
test: {episodes: 20}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, text in (("learner", RL2), ("chance", RANDOM)):
        (folder / f"{name}.yaml").write_text(text)
        run(load(folder / f"{name}.yaml").experiment, 0, RunDirectory(folder / name / "seed-0"))
    return folder


def lines_of(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def test_the_figures_hold_the_numbers_of_the_runs(runs):
    import metarun.experiments.plot as plot

    found = runs_below([runs])
    assert [one.label for one in found] == ["random", "rl2"]
    learning, regret = lines_of(plot.learning(found)), lines_of(plot.regret(found))
    assert list(learning["rl2"].get_xdata()) == [1, 2] and set(learning) == {"rl2", "random"}
    assert learning["random"].get_ydata()[0] == pytest.approx(found[0].row.mean)
    assert regret["rl2"].get_ydata()[-1] == pytest.approx(found[1].row.regret, rel=1e-5)
    assert regret["rl2"].get_color() != regret["random"].get_color()
    assert regret["rl2"].get_linestyle() != regret["random"].get_linestyle()  # told apart in grey


def test_the_command_writes_what_there_is_to_draw(runs, tmp_path):
    command = [sys.executable, "-m", "metarun.cli.main", "plot", str(runs), "--out", str(tmp_path), "--format", "svg"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["learning.svg", "optimal.svg", "regret.svg"]
    assert all(str(tmp_path / name) in done.stdout for name in ("learning.svg", "regret.svg"))
    again = list(draw_all(runs_below([runs / "chance"]), tmp_path / "chance", "png"))
    assert [path.name for path in again] == ["regret.png", "optimal.png"]  # it has nothing to learn


def test_runs_of_several_folders_are_told_apart(runs, tmp_path):
    shutil.copytree(runs / "learner", tmp_path / "copy" / "learner")
    found = runs_below([runs / "learner", tmp_path / "copy"])
    assert len({one.label for one in found}) == len({one.name for one in found}) == 2
    for text in ("", "step,optimal_by_step\n1,0.5\n"):
        (tmp_path / "copy" / "learner" / "seed-0" / "curves.csv").write_text(text)
        with pytest.raises(RunError, match=r"curves\.csv is damaged"):
            list(draw_all(runs_below([tmp_path / "copy"]), tmp_path / "figures", "png", ["regret"]))


def test_no_run_is_a_mistake(tmp_path):
    with pytest.raises(RunError, match="no finished run in"):
        runs_below([tmp_path])

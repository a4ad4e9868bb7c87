"""Figures are drawn from the files of runs."""

import shutil
import subprocess
import sys

import pytest

from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.figures import curves
from metarun.experiments.figures.draw import draw_all
from metarun.experiments.figures.finished import runs_below
from metarun.experiments.figures.style import plain
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run
from metarun.experiments.training.train import train

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
        train(Run(load(folder / f"{name}.yaml").experiment, 0, RunDirectory(folder / name / "seed-0")))
    return folder


def lines_of(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def test_the_figures_hold_the_numbers_of_the_runs(runs):
    found = runs_below([runs])
    assert [one.label for one in found] == ["random", "rl2"]
    learning, regret = lines_of(curves.learning(found)), lines_of(curves.regret(found))
    assert list(learning["rl2"].get_xdata()) == [1, 2] and set(learning) == {"rl2", "random (test)"}
    assert learning["random (test)"].get_ydata()[0] == pytest.approx(found[0].row.mean)
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


def test_names_in_paths_collide_with_nothing(runs, tmp_path):
    for place in ("a-b", "a/b", "_$5_$6"):
        shutil.copytree(runs / "learner", tmp_path / place)
    found = runs_below([tmp_path / "a-b", tmp_path / "a/b", tmp_path / "_$5_$6"])
    assert len({one.name for one in found}) == 3
    figure = curves.learning(found)
    figure.savefig(tmp_path / "learning.svg")  # two dollars would be a formula that does not parse
    assert len(figure.axes[0].get_legend().get_texts()) == 3
    labels = [plain(text) for text in ("_old/seed-0", "cost_$5_$6", "plain")]
    assert labels == [" _old/seed-0", r"cost_\$5_\$6", "plain"]


def test_many_runs_are_told_apart_and_one_point_is_seen(runs, tmp_path):
    (learner,) = runs_below([runs / "learner"])
    many = [learner._replace(label=f"run {number}") for number in range(20)]
    figure = curves.learning(many)
    looks = {(line.get_color(), line._dash_pattern[0], line.get_marker()) for line in figure.axes[0].get_lines()}
    assert len(looks) == 20  # seven of each, taken together, are 7 looks
    figure.savefig(tmp_path / "many.png")
    assert figure.axes[0].get_window_extent().height > 100  # the legend leaves them room

    shutil.copytree(runs / "learner", tmp_path / "one")
    metrics = tmp_path / "one/seed-0/metrics.csv"
    lines = metrics.read_text().splitlines(True)
    last = [line for line in lines if ",val," in line][-1]
    metrics.write_text("".join(line for line in lines if ",val," not in line) + last)
    (line, *interval) = curves.learning(runs_below([tmp_path / "one"])).axes[0].get_lines()
    assert line.get_marker() not in ("", "None") and interval  # a line of one point is nothing


def test_no_run_is_a_mistake(tmp_path):
    with pytest.raises(RunError, match="no finished run in"):
        runs_below([tmp_path])

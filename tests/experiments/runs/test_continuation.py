"""A longer training continues a shorter one, and ends as one that began at the first step, bit for bit."""

import csv
import shutil

import pytest
from finished import results

from metarun.experiments.config.load import load
from metarun.experiments.config.variants import is_beginning
from metarun.experiments.errors import RunError
from metarun.experiments.evaluation.retest import evaluate
from metarun.experiments.papers.definition import load_table
from metarun.experiments.papers.plan import plan
from metarun.experiments.runs import checkpoint
from metarun.experiments.runs.continuation import continue_shorter_run, shorter_run
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run
from metarun.experiments.training.train import train

SPEC = """
name: sines
algorithm: {name: maml, inner_lr: 0.01}
network: {name: mlp, hidden: [16]}
dataset: {name: sinusoid}
protocol: inductive
optimizer: {schedule: step, decay_every: 30}
train: {way: 1, shot: 5, query: 5, meta_batch: 4, steps: 80, log_every: 20}
validation: {episodes: 20, every: 40}
test: {way: 1, shot: 5, query: 5, episodes: 30}
"""


@pytest.fixture
def sines(tmp_path):
    """Return a function that gives the experiment of the spec, changed, and its folder."""
    (tmp_path / "sines.yaml").write_text(SPEC)

    def make(*changes, out="runs", seed=0):
        experiment = load(tmp_path / "sines.yaml", changes).experiment
        return experiment, RunDirectory(tmp_path / out / experiment.name / f"seed-{seed}")

    return make


def leave(experiment, directory, step, images="images"):
    """Write what `shorter_run` and `continue_shorter_run` read of a run that has done so many steps."""
    Run(experiment, 0, directory).write_spec()
    checkpoint.save(directory.checkpoint(step), [], {"content_digest": images, "step": step})
    checkpoint.save(directory.best, [], {"best": step})
    return directory.path


def seconds(directory):
    with open(directory.metrics, newline="") as file:
        return {(int(row["step"]), row["split"]): row["seconds"] for row in csv.DictReader(file)}


def test_it_ends_as_an_undisturbed_one(sines, capsys):
    """Reject weights without Adam's moments, the tasks from number 0 again, training from the first step."""
    undisturbed = sines("name=long", "train.steps=160", out="alone")
    shorter, whole = sines(), sines("name=long", "train.steps=160")
    train(Run(undisturbed[0], 0, undisturbed[1]))
    train(Run(shorter[0], 0, shorter[1]))
    stamp = shorter[1].result.stat().st_mtime_ns
    assert "continues" not in capsys.readouterr().err
    train(Run(whole[0], 0, whole[1]))
    told = f"{whole[1].path} continues {shorter[1].path}, the same training up to step 80"
    assert told in capsys.readouterr().err
    assert results(whole[1].path) == results(undisturbed[1].path)
    earlier = {key: time for key, time in seconds(whole[1]).items() if key[0] <= 80}
    assert earlier == seconds(shorter[1])  # they were not done again
    assert shorter[1].result.stat().st_mtime_ns == stamp and shorter[1].newest_checkpoints()


@pytest.mark.parametrize(
    ("shorter", "longer", "is_one"),
    [
        ([], ["train.steps=160"], True),
        (["name=other", "description=x"], ["train.steps=81"], True),
        (["optimizer.decay_every=null", "optimizer.schedule=constant"], None, True),
        (["validation=null", "train.steps=60"], ["validation=null"], True),
        ([], [], False),  # of the same length
        (["train.steps=160"], [], False),
        (["train.steps=60"], [], False),  # its last validation is none of the longer one
        (["validation=null", "train.steps=70"], ["validation=null"], False),  # nor is its last row
        (["optimizer.schedule=linear", "optimizer.decay_every=null"], None, False),
        (["optimizer.schedule=cosine", "optimizer.decay_every=null"], None, False),
        (["optimizer.decay_every=20"], ["train.steps=160"], False),
        (["train.meta_batch=2"], ["train.steps=160"], False),
        (["test.episodes=40"], ["train.steps=160"], True),  # the test is none of the training
        (["test.query=4"], ["train.steps=160"], False),  # but the validation has its shape
        (["test.episode_seed=1"], ["train.steps=160"], False),  # and its seed
        (["test.query=4", "validation.query=5"], ["train.steps=160"], True),
        (["network.hidden=[8]"], ["train.steps=2000"], False),
        ([], ["train.steps=1200"], False),  # XLA compiles the longer one
    ],
)
def test_which_training_is_the_beginning_of_another(tmp_path, shorter, longer, is_one):
    (tmp_path / "sines.yaml").write_text(SPEC)
    longer = [*shorter, "train.steps=160"] if longer is None else longer
    one, other = (load(tmp_path / "sines.yaml", changes).experiment for changes in (shorter, longer))
    assert is_beginning(one, other) is is_one


def test_the_one_that_has_done_most_is_chosen(sines, tmp_path):
    whole = sines("name=long", "train.steps=160")
    leave(*sines("train.steps=80"), 60)
    most = leave(*sines("name=more", "train.steps=120"), 80)
    leave(*sines("name=another-seed", "train.steps=120", seed=1), 120)
    leave(*sines("name=elsewhere", "train.steps=120", out="elsewhere"), 120)
    leave(*sines("name=another-rate", "train.steps=120", "algorithm.inner_lr=0.02"), 120)
    unreadable = leave(*sines("name=unreadable", "train.steps=120"), 120) / "spec.yaml"
    unreadable.unlink()
    unreadable.mkdir()

    def found():
        other = shorter_run(*whole)
        return other and other.path

    assert found() == most
    with RunDirectory(most).locked():  # at work
        assert found() == tmp_path / "runs/sines/seed-0"
        RunDirectory(most).result.touch()  # being tested again, which changes no checkpoint
        assert found() == most
    whole[1].checkpoints.mkdir(parents=True)
    whole[1].checkpoint(79).touch()  # rejected: any checkpoint of its own, were it of the first step
    assert found() == most
    whole[1].checkpoint(80).touch()
    assert found() is None
    whole[1].checkpoint(80).unlink()
    whole[1].afresh.touch()  # started with --fresh
    assert found() is None
    whole[1].afresh.unlink()
    (tmp_path / "runs/sines/seed-0/spec.yaml").write_text("name: sines\ntrain:\n  steps: 80\n")  # no whole spec
    most.rename(most.with_name("seed-0~1"))  # set aside
    assert found() is None


def test_what_is_taken_over(sines, capsys):
    """Take nothing from a training on other images, nor of a damaged checkpoint; the best one by validation comes
    along."""
    shorter, whole = sines(), sines("name=long", "train.steps=160")
    leave(*shorter, 40)
    continue_shorter_run(*whole, "other images")
    assert not whole[1].path.exists()
    continue_shorter_run(*whole, "images")
    for path in ("checkpoints/best.npz", "checkpoints/step-40.npz"):
        state, arrays = checkpoint.read(shorter[1].path / path)
        assert checkpoint.read(whole[1].path / path) == (state | {"digest": whole[0].digest}, arrays)
    assert "continues" in capsys.readouterr().err
    begun_itself = sines("name=begun", "train.steps=160")
    leave(*begun_itself, 20)
    continue_shorter_run(*begun_itself, "images")
    assert begun_itself[1].step == 40 and checkpoint.read(begun_itself[1].best)[0]["best"] == 40
    another = sines("name=another", "train.steps=160")
    shorter[1].checkpoint(40).write_bytes(b"cut off")
    continue_shorter_run(*another, "images")
    assert not another[1].path.exists() and "not a whole checkpoint" in capsys.readouterr().err


@pytest.mark.slow
def test_a_best_checkpoint_that_was_taken_over_is_tested_again(sines):
    """Reject "a checkpoint of another spec": no validation after the shorter training was better."""
    frozen = "optimizer={schedule: step, decay_steps: [60], decay_factor: 1e-12}"
    shorter, whole = sines(frozen), sines(frozen, "name=long", "train.steps=160")
    train(Run(shorter[0], 0, shorter[1]))
    assert train(Run(whole[0], 0, whole[1])).checkpoint == "best"
    assert checkpoint.read(whole[1].best)[0]["step"] <= 80
    assert evaluate(whole[1].path, "test", {"episodes": 20})[0].train_steps == 160


def test_in_the_folder_of_a_shorter_one_the_way_out_is_a_name(sines):
    leave(*sines(), 40)
    with pytest.raises(RunError, match="name of its own .* continues the shorter one"):
        Run(sines("train.steps=160")[0], 0, sines()[1]).refuse_another_spec()
    with pytest.raises(RunError, match="rename the experiment"):
        Run(sines("train.steps=40")[0], 0, sines()[1]).refuse_another_spec()


def test_a_larger_budget_counts_what_a_smaller_one_did(sines, tmp_path):
    spec, paper = tmp_path / "whole.yaml", tmp_path / "paper.yaml"
    spec.write_text(SPEC.replace("steps: 80", "steps: 160").replace("{schedule: step, decay_every: 30}", "{}"))
    paper.write_text(f"title: Sines\ncells:\n- {{name: k5, column: K, method: MAML, spec: {spec}}}\n")
    (one,) = plan(load_table(str(paper)), tmp_path / "runs")
    leave(*sines("name=sines-budget-0.5"), 80)  # of another optimizer
    assert str(one.state) == "missing" and one.step == 0
    leave(*sines("name=sines-budget-0.25", "optimizer={}", "train.steps=40"), 40)
    assert str(one.state) == "missing, continues from step 40 of sines-budget-0.25" and one.step == 40


def test_the_weights_are_those_of_the_last_step_and_of_this_run(sines):
    """Reject an older checkpoint for the last one, another seed's or another spec's for this one."""
    whole, other = sines(), sines(seed=1)
    train(Run(whole[0], 0, whole[1]))
    shutil.copytree(whole[1].checkpoints, other[1].checkpoints)
    with pytest.raises(RunError, match=r"step-80\.npz is of seed 0, not 1"):
        train(Run(other[0], 1, other[1]))
    changed = sines("algorithm.inner_lr=0.02", out="changed")
    shutil.copytree(whole[1].checkpoints, changed[1].checkpoints)
    with pytest.raises(RunError, match=r"step-80\.npz is a checkpoint of another spec"):
        train(Run(changed[0], 0, changed[1]))
    whole[1].checkpoint(80).unlink()
    assert whole[1].newest_checkpoints()
    with pytest.raises(RunError, match=r"step-80\.npz is missing"):
        evaluate(whole[1].path, "test", {"checkpoint": "last"})

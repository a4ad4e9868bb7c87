"""Runs whose images come from files, or change while a run is away."""

import json
import os
import signal

import numpy as np
import pytest
from finished import results
from PIL import Image

from metarun import datasets
from metarun.datasets.imagefolder import divide, find_classes
from metarun.experiments.config.load import load
from metarun.experiments.errors import Interrupted, RunError
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run
from metarun.experiments.training.loop import Training
from metarun.experiments.training.train import train

PICTURES = """
name: pictures
algorithm: {name: protonet}
network: {name: conv4, filters: 4}
dataset: {name: imagefolder, path: pictures, image_size: 16, channels: 1}
protocol: inductive
train: {way: 3, shot: 1, query: 2, steps: 12, log_every: 3}
validation: {way: 2, episodes: 20, every: 4}
test: {way: 3, shot: 1, query: 2, episodes: 30}
jit: off
"""


@pytest.fixture
def pictures(tmp_path):
    """Write pictures and a spec of them; return its path."""
    generator = np.random.default_rng(0)
    for number in range(20):
        folder = tmp_path / "pictures" / f"class {number}"
        folder.mkdir(parents=True)
        for image in range(5):
            pixels = generator.integers(0, 256, (20, 24), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{image}.png")
    (tmp_path / "pictures.yaml").write_text(PICTURES)
    return tmp_path / "pictures.yaml"


@pytest.fixture
def run_until(monkeypatch):
    """Return a function that runs an experiment and sends the signal of a batch system after a step."""

    def run_until(step, experiment, directory, told=r"stopped after step \d+ of"):
        original = Training._count

        def counted(training, *arguments):
            if training.step == step:
                os.kill(os.getpid(), signal.SIGTERM)
            original(training, *arguments)

        with monkeypatch.context() as patch, pytest.raises(Interrupted, match=told):
            patch.setattr(Training, "_count", counted)
            train(Run(experiment, 0, directory))

    return run_until


@pytest.mark.slow
def test_reading_from_files_trains_as_from_memory_and_goes_on_after_a_stop(tmp_path, pictures, run_until):
    resident, streamed = (load(pictures, [f"dataset.in_memory={told}"]).experiment for told in ("true", "false"))
    train(Run(resident, 0, RunDirectory(tmp_path / "resident")))
    run_until(5, streamed, RunDirectory(tmp_path / "streamed"))
    train(Run(streamed, 0, RunDirectory(tmp_path / "streamed")))
    expected, found = results(tmp_path / "resident"), results(tmp_path / "streamed")
    assert expected["row"].pop("spec_digest") != found["row"].pop("spec_digest")
    assert found == expected


@pytest.mark.slow
def test_a_signal_in_the_last_step_comes_before_the_test(tmp_path, pictures, run_until):
    """Stop before the test, not after it: the test of some specs takes hours."""
    experiment = load(str(pictures), ["validation=null"]).experiment
    directory, whole = RunDirectory(tmp_path / "seed-0"), RunDirectory(tmp_path / "whole")
    run_until(12, experiment, directory, told="the same command resumes")
    assert directory.step == 12 and not directory.partial_test.exists() and not directory.finished
    train(Run(experiment, 0, directory))
    train(Run(experiment, 0, whole))
    assert results(directory.path) == results(whole.path)


def test_a_run_does_not_go_on_with_other_images(tmp_path, pictures, run_until):
    experiment, directory = load(pictures).experiment, RunDirectory(tmp_path / "run")
    run_until(5, experiment, directory)
    picture = tmp_path / "pictures" / "class 3" / "0.png"
    first = picture.read_bytes()
    Image.new("L", (20, 24)).save(picture)
    with pytest.raises(RunError, match=r"imagefolder .*pictures has other images .* train again with --fresh"):
        train(Run(experiment, 0, directory))
    assert not directory.finished
    picture.write_bytes(first)  # at another time, but the same
    options = experiment.dataset
    (_, first_class), (_, second_class) = divide(find_classes(options.path)["all"], options.split, 0)["train"][:2]
    before, after = first_class[0].with_name("9.png"), second_class[0]
    after.rename(before)  # the same pixels in the same order, of another class
    with pytest.raises(RunError, match="has other images"):
        train(Run(experiment, 0, directory))
    before.rename(after)
    assert train(Run(experiment, 0, directory)).train_steps == 12


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [False, True])
def test_a_checkpoint_from_before_there_were_such_digests_is_good(tmp_path, pictures, run_until, pixels):
    """Take a checkpoint that has no digest, or that of the pixels alone."""
    experiment, directory = load(pictures).experiment, RunDirectory(tmp_path / "run")
    run_until(5, experiment, directory)
    path = directory.newest_checkpoints()[0]
    with np.load(path) as file:
        arrays = dict(file)
    state = json.loads(str(arrays["state"]))
    del state["content_digest"]
    if pixels:
        state["content_digest"] = datasets.build(experiment.dataset).former_digest
    np.savez(path, **arrays | {"state": np.array(json.dumps(state))})
    assert train(Run(experiment, 0, directory)).train_steps == 12

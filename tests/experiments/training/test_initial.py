"""Trainings that start from the weights of another run, and layers that stay as they are."""

import shutil
from typing import Literal

import numpy as np
import pytest
from few_shot import OPTIONS, learner
from finished import results

from metarun.algorithms.networks.options import Conv4Options, MLPOptions, Pretrained, ResNet12Options
from metarun.algorithms.optimizer_options import OptimizerOptions
from metarun.algorithms.options import MAMLOptions, PrototypicalNetworkOptions
from metarun.datasets.errors import DataError
from metarun.experiments.config.load import load, resolved_yaml
from metarun.experiments.config.variants import is_beginning
from metarun.experiments.errors import Interrupted, RunError, SpecError
from metarun.experiments.model import build, deterministic
from metarun.experiments.runs import checkpoint
from metarun.experiments.runs.archive import pack
from metarun.experiments.runs.rows import read_row
from metarun.experiments.runs.run import Run
from metarun.experiments.runs.weights import weights_of
from metarun.experiments.training import loop
from metarun.experiments.training.initial import initialise, names_of
from metarun.experiments.training.train import train

SPEC = """
name: sines
algorithm: {name: maml, inner_lr: 0.01}
network: {name: mlp, hidden: [4]}
dataset: {name: sinusoid}
protocol: inductive
train: {way: 1, shot: 5, query: 5, steps: 4, meta_batch: 2, log_every: 2}
validation: {episodes: 4, every: 2}
test: {way: 1, shot: 5, query: 5, episodes: 4}
jit: off
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Train a run of regression."""
    out = tmp_path_factory.mktemp("source")
    (out / "sines.yaml").write_text(SPEC)
    run = Run.at(out, load(out / "sines.yaml").experiment, 0)
    train(run)
    return run


@pytest.fixture
def from_source(source, tmp_path):
    """Return a function that gives the run of the spec, changed, which starts from a copy of the source."""
    shutil.copytree(source.directory.path, tmp_path / "origin")
    (tmp_path / "sines.yaml").write_text(SPEC)

    def run(*changes, init="origin", name="new"):
        given = [f"name={name}", f"network.init={tmp_path / init}", *changes]
        return Run.at(tmp_path, load(tmp_path / "sines.yaml", given).experiment, 3)

    return run


def weights(run):
    """Return the values of the tested checkpoint by name."""
    found = weights_of(run.directory.path)
    return {name: found.arrays[number] for name, number in found.numbers.items()}


def test_a_training_starts_from_the_weights(source, from_source, tmp_path):
    """Reject weights of the run's own seed; the digest is that of the content, in the spec and the digests."""
    run, before = from_source(), weights(source)
    model = build(run.experiment, 3)
    assert not np.array_equal(model.learner.parameters["dense1/kernel"], before["dense1/kernel"])
    assert "starts from the weights of" in initialise(model)
    assert {name: value.numpy().tolist() for name, value in model.learner.parameters.items()} == {
        name: value.tolist() for name, value in before.items()
    }
    pack(source.directory.path, tmp_path / "packed.zip")
    assert from_source(init="packed.zip").experiment.digest == run.experiment.digest
    assert run.experiment.training_digest != source.experiment.training_digest
    run.write_spec()
    digest = read_row(source.directory.result).weights_digest
    assert digest == weights_of(source.directory.path).digest
    assert f"init_digest: {digest}" in run.directory.spec.read_text()


@pytest.mark.slow
def test_the_source_is_needed_for_the_first_start_only(from_source, tmp_path, monkeypatch, capsys):
    """Reject a resumed run that reads the source again: it is gone, and the end is that of an undisturbed run."""
    undisturbed = from_source(name="undisturbed")
    row = train(undisturbed)
    assert f"undisturbed/seed-3 starts from the weights of {tmp_path / 'origin'}" in capsys.readouterr().err
    assert row.init == undisturbed.experiment.network.init_digest and row.weights_digest != row.init
    run = from_source()
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, "validates_at", lambda step, _: _stop(step))
        train(run)
    (tmp_path / "origin").rename(tmp_path / "gone")
    assert run.directory.step == 2
    again = from_source()
    assert again.experiment.digest == run.experiment.digest
    train(again)
    told, expected = results(run.directory.path), results(undisturbed.directory.path)
    for each in (told, expected):
        del each["row"]["experiment"], each["row"]["spec_digest"]
    assert told == expected
    assert train(from_source()) == read_row(run.directory.result)  # which is finished
    with pytest.raises(SpecError, match="network.init: .*origin is missing"):
        from_source(name="another")


def _stop(step):
    if step == 4:
        raise Interrupted("stopped")
    return step % 2 == 0


def test_a_source_that_changed_is_told(from_source, tmp_path):
    """Reject other weights taken for those that a run began with, before its start and after it."""
    run = from_source()
    run.write_spec()
    best = tmp_path / "origin" / "checkpoints" / "best.npz"
    state, arrays = checkpoint.read(best)
    checkpoint.save(best, [arrays[0] + 1, *arrays[1:]], state)
    with pytest.raises(RunError, match=r"the weights of .*origin have the digest .*, and this run starts from"):
        initialise(build(run.experiment, 3))
    checkpoint.save(run.directory.checkpoint(2), arrays, state)
    with pytest.raises(RunError, match="of another spec, network.init_digest: "):
        from_source().refuse_another_spec()


def test_a_longer_training_continues_one_from_the_same_weights_alone(from_source):
    short, long = from_source().experiment, from_source("train.steps=8").experiment
    other = long.model_copy(update={"network": long.network.model_copy(update={"init_digest": "0" * 16})})
    assert is_beginning(short, long) and not is_beginning(short, other)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["network.hidden=[5]"], "dense1/kernel is [1, 4] there and [1, 5] here"),
        (["network.hidden=[4, 4]"], "dense2/kernel is missing there and [4, 4] here"),
        (["network.batch_norm=true"], "norm1/scale is missing there and [4] here"),
    ],
)
def test_another_body_is_refused(from_source, changes, words):
    with pytest.raises(RunError) as told:
        initialise(build(from_source(*changes).experiment, 3))
    assert "the body of" in str(told.value) and words in str(told.value)


def test_a_head_of_other_width_starts_afresh(source, from_source, tmp_path):
    """Reject a head that is refused, and running averages that stay behind; what is taken is cast to the precision."""
    state, arrays = checkpoint.read(source.directory.best)
    numbers = state["weights"]
    arrays[numbers["head/kernel"]] = np.zeros((4, 7), np.float32)
    checkpoint.save(tmp_path / "origin" / "checkpoints" / "best.npz", arrays, state)
    model = build(from_source("precision=float64").experiment, 3)
    head = model.learner.parameters["head/kernel"].numpy()
    assert initialise(model).endswith("; starting afresh: head")
    np.testing.assert_array_equal(model.learner.parameters["head/kernel"], head)
    np.testing.assert_array_equal(model.learner.parameters["head/bias"], arrays[numbers["head/bias"]])
    np.testing.assert_array_equal(model.learner.parameters["dense1/kernel"], arrays[numbers["dense1/kernel"]])


def test_names_are_those_of_weights_and_running_averages():
    """Reject names of the optimizer's state, and a body without its running averages."""
    network = MLPOptions(hidden=(4,), batch_norm=True)
    one = learner(PrototypicalNetworkOptions(), network, "inductive")
    assert list(names_of(one)) == ["dense1/kernel", "norm1/scale", "norm1/offset", "norm1/mean", "norm1/variance"]
    assert set(names_of(one).values()) == set(range(5)) and len(one.variables) > 5


def test_checkpoints_of_older_versions_serve_an_equal_learner(from_source, tmp_path):
    best = tmp_path / "origin" / "checkpoints" / "best.npz"
    state, arrays = checkpoint.read(best)
    del state["weights"]
    checkpoint.save(best, arrays, state)
    model = build(from_source().experiment, 3)
    initialise(model)
    np.testing.assert_array_equal(model.learner.parameters["head/bias"], arrays[3])
    with pytest.raises(RunError, match="of an older version, and fits a learner of its own kind only"):
        initialise(build(from_source("network.hidden=[4, 4]").experiment, 3))


@pytest.mark.parametrize("has_head", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        Conv4Options(filters=2),
        Conv4Options(filters=2, batch_norm=False),
        MLPOptions(hidden=(3, 3), batch_norm=True, norm_scale=False),
        MLPOptions(hidden=()),
        ResNet12Options(widths=(2, 2, 2, 2)),
        ResNet12Options(widths=(2, 2, 2, 2), norm_scale=False),
    ],
    ids=["conv4", "conv4 without norm", "mlp with norm", "linear", "resnet12", "resnet12 without scales"],
)
def test_options_know_the_names_of_the_parameters(options, has_head):
    """Reject a quick check of `freeze` that knows other names than the network has."""
    if not (has_head or options.body):
        pytest.skip("an embedding of no layers has no parameters")
    from metarun.algorithms import networks

    network = networks.build(options, (16, 16, 1), 3 if has_head else None, "float32", 0)
    assert options.parameter_names(has_head) == list(network.parameters)


@pytest.mark.parametrize(
    ("name", "freeze", "frozen"),
    [
        ("maml", ["body"], {"dense1/kernel", "norm1/scale", "norm1/offset"}),
        (
            "reptile",
            ["norm", "dense1/kernel", "head/bias"],
            {"dense1/kernel", "norm1/scale", "norm1/offset", "head/bias"},
        ),
    ],
)
def test_frozen_layers_get_no_update(name, freeze, frozen, make_source):
    """Reject momentum that moves frozen weights, and a clipped norm that counts their gradients."""
    network = MLPOptions(hidden=(4,), batch_norm=True, freeze=tuple(freeze))
    batch = make_source().sample("train", 0, 2, (3, 2, 2), 0)
    optimizer = OptimizerOptions(name="adam", learning_rate=0.1)
    one = learner(OPTIONS[name], network, "transductive", optimizer=optimizer, jit=False)
    before = {key: value.numpy() for key, value in one.parameters.items()}
    for _ in range(2):
        one.train_step(batch)
    same = {key for key, value in one.parameters.items() if np.array_equal(value, before[key])}
    assert same == frozen


def test_a_clipped_norm_does_not_count_frozen_layers(make_source):
    batch = make_source().sample("train", 0, 2, (3, 2, 2), 0)
    optimizer = OptimizerOptions(name="sgd", learning_rate=1.0, clip_norm=1e-3)
    one = learner(
        MAMLOptions(inner_lr=0.1),
        MLPOptions(hidden=(4,), freeze=("body",)),
        "inductive",
        optimizer=optimizer,
        jit=False,
    )
    before = {key: value.numpy() for key, value in one.parameters.items()}
    one.train_step(batch)
    moved = sum(float(((value.numpy() - before[key]) ** 2).sum()) for key, value in one.parameters.items())
    assert moved**0.5 == pytest.approx(1e-3, rel=1e-2)


class Dense(Pretrained):
    """Build a Keras network of another package."""

    name: Literal["dense"] = "dense"

    def build(self, input_shape, outputs, precision, seed):
        import keras

        layers = [keras.layers.Flatten(), keras.layers.Dense(3), keras.layers.Dense(outputs)]
        return keras.Sequential([keras.Input(input_shape), *layers])


def test_a_keras_network_of_a_package_has_names_too():
    """Reject names that count the layers of earlier models in this process."""
    options, found = Dense(freeze=("sequential/dense",)), []
    for _ in range(2):
        deterministic(0)
        one = learner(OPTIONS["maml"], options, "inductive", jit=False)
        found.append(list(names_of(one)))
    assert found[0] == found[1] and "sequential/dense/kernel" in found[0] and len(found[0]) == 4
    frozen = [name for name, value in one.parameters.items() if id(value) in one.optimizer.frozen]
    assert frozen == ["sequential/dense/kernel", "sequential/dense/bias"]
    deterministic(0)
    with pytest.raises(DataError, match="no layer 'dense' to freeze; expected body, sequential/dense, "):
        learner(OPTIONS["maml"], Dense(freeze=("dense",)), "inductive", jit=False)


def test_everything_frozen_is_refused():
    with pytest.raises(DataError, match="every parameter is frozen, and nothing is left to train"):
        learner(PrototypicalNetworkOptions(), MLPOptions(hidden=(4,), freeze=("body",)), "inductive")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("network.freeze=[dens1]", "network.freeze: there is no layer 'dens1' to freeze; did you mean dense1?"),
        ("network.freeze=[xyz]", "no layer 'xyz' to freeze; expected body, dense1, head"),
        ("network.freeze=[norm]", "no layer 'norm' to freeze"),
        ("network.freeze=[]", "network.freeze: has no effect: it names no layer"),
        (f"network.init_digest={'a' * 16}", "network.init_digest: has no effect without init"),
        ("network.init_digest=abc", "network.init_digest"),
    ],
)
def test_mistakes_in_the_spec_are_told_before_tensorflow(tmp_path, change, words):
    (tmp_path / "sines.yaml").write_text(SPEC)
    with pytest.raises(SpecError) as told:
        load(tmp_path / "sines.yaml", [change])
    assert words in str(told.value)


def test_a_source_that_is_no_finished_run_is_told(source, tmp_path):
    (tmp_path / "sines.yaml").write_text(SPEC)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no archive")
    for init, words in (("empty", "no result.json"), ("text", "no whole archive"), ("nothing", "is missing")):
        with pytest.raises(SpecError, match=f"network.init: .*{init}.*{words}"):
            Run.at(tmp_path, load(tmp_path / "sines.yaml", [f"network.init={tmp_path / init}"]).experiment, 0)


def test_a_relative_place_begins_at_the_spec_or_at_the_current_folder(tmp_path, monkeypatch):
    """Reject -s network.init=runs/NAME/seed-0 that is looked for beside a shipped spec."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "sines.yaml").write_text(SPEC.replace("{name: mlp", "{init: here, name: mlp"))
    monkeypatch.chdir(tmp_path)

    def place(*changes):
        experiment = load(tmp_path / "sub" / "sines.yaml", changes).experiment
        assert load_again(tmp_path, experiment).network.init == experiment.network.init
        return experiment.network.init

    assert place() == tmp_path / "sub" / "here"
    assert place("network.init=there") == tmp_path / "there"


def load_again(folder, experiment):
    (folder / "resolved.yaml").write_text(resolved_yaml(experiment))
    return load(folder / "resolved.yaml").experiment

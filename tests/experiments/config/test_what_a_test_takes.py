"""The test's sections that are taken from the training, and the file or override that is blamed for a mistake."""

import pytest
import yaml
from shipped import ONE_OF_EACH, SHIPPED
from specs import GOOD, mistakes

from metarun.experiments.config.load import load, resolved_yaml
from metarun.experiments.runs.sweep import grid

PROTONET = GOOD.replace("name: maml\n  inner_lr: 0.4", "name: protonet") + "  shot: 5\n  query: 7\n"


def test_fault_31_a_test_takes_the_shot_and_query_of_the_training_where_it_says_nothing(write):
    """Reject the test's own defaults, 1 and 15; training's way for a learner that needs none."""
    plain = load(write(PROTONET + "  way: 20\n"))
    assert (plain.experiment.test.way, plain.experiment.test.shot, plain.experiment.test.query) == (5, 5, 7)
    assert plain.origins["test.shot"] == "train.shot" and "test.way" not in plain.origins
    own = load(write(PROTONET + "test: {shot: 2}\n")).experiment.test
    assert (own.shot, own.query) == (2, 7)
    wide = load(write(GOOD + "  way: 20\n"))  # the last layer of maml has as many outputs as training has ways
    assert (wide.experiment.test.way, wide.origins["test.way"]) == (20, "train.way")
    assert load(write(GOOD)).experiment.test.shot == 1
    validated = load(write(PROTONET)).experiment
    assert validated.validation.shot is None  # as the test's


def test_fault_31_a_sweep_moves_the_test_or_says_that_it_does_not(write, tmp_path, capsys):
    free = grid([str(write(PROTONET))], ["train.shot=1,3"], [0], tmp_path)
    assert [run.experiment.test.shot for run in free] == [1, 3] and not capsys.readouterr().err
    stated = write(PROTONET + "test: {shot: 5, query: 9}\n")
    assert [run.experiment.test.shot for run in grid([str(stated)], ["train.shot=1,3"], [0], tmp_path)] == [5, 5]
    warning = "warning: train.shot (command line) changes the training alone: test.shot is 5 (spec.yaml:14); with "
    assert capsys.readouterr().err.count(warning) == 1  # once for all values
    assert len(load(stated, ["train={steps: 3}"]).warnings) == 1  # 1 by default
    both = ["train.shot=1,3", "test.shot=null"]
    assert [run.experiment.test.shot for run in grid([str(stated)], both, [0], tmp_path)] == [1, 3]
    for overrides in (
        ["train.query=3"],
        ["train.shot=1", "test.shot=5"],
        ["train.steps=3"],
    ):  # they differed, or are said
        assert not load(stated, overrides).warnings


def test_fault_31_a_child_that_changes_the_training_alone_is_told(write, tmp_path):
    """Reject silence where the other spec states both; a warning where the child states both, or changes neither."""
    write(PROTONET + "test: {shot: 5, query: 9}\n")
    child = tmp_path / "child.yaml"
    for text, told in (
        ("train: {shot: 1}", ["train.shot (child.yaml:3) changes the training alone: test.shot is 5 (spec.yaml:14)"]),
        ("train: {shot: 1}\ntest: {shot: null}", []),
        ("train: {shot: 1}\ntest: {shot: 5}", []),
        ("train: {query: 1}", []),  # it differed before
        ("train: {steps: 1}", []),
        ("train: {way: 20}", []),  # ways are often other ones
    ):
        child.write_text(f"extends: spec.yaml\nname: child\n{text}\n")
        assert [each.partition(";")[0] for each in load(child).warnings] == told
    assert not any(load(name).warnings for name in SHIPPED)


@pytest.mark.parametrize("name", ONE_OF_EACH.values())
def test_fault_31_a_stored_spec_says_what_its_test_was(name):
    """Read runs of before as they were trained. Rejected: a resolved spec that leaves the test to the training."""
    stored = yaml.safe_load(resolved_yaml(load(name).experiment))
    if SHIPPED[name].kind.plays_trials:
        assert {"way", "shot", "query"}.isdisjoint(stored["test"])
    else:
        assert {"way", "shot", "query"} <= stored["test"].keys()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("foo.bar=1", "command line: foo: unknown key; expected one of name, "),
        ("trian.steps=1", "command line: trian: unknown key; did you mean train?"),
        ("foo.inner_lr=1", "command line: foo: unknown key; did you mean algorithm.inner_lr?"),
        ("shot=5", "command line: shot: unknown key; did you mean train.shot or validation.shot or test.shot?"),
        ("published.value=1", "command line: published.source: is missing"),
        ("network={name: mlp, filters: 3}", "command line: network.filters: has no effect: mlp has no option filters"),
        ("algorithm.name=protonet", "command line, spec.yaml:4: algorithm.inner_lr: has no effect: protonet has no"),
        ("dataset.name=sinusoid", "command line, spec.yaml:5: network.name: conv4 reads images"),
        ("cluster.slurm.qos=[1]", "command line: cluster.slurm.qos: expected text or a whole number or true or false"),
    ],
)
def test_fault_31_an_override_is_blamed_for_its_own_mistakes(write, override, words):
    """Reject the line of the file that is right without the override, by itself."""
    told = mistakes(write(GOOD), override)
    assert any(words in each for each in told)
    assert not any(each.startswith("spec.yaml") for each in told)


def test_fault_31_a_mistake_of_the_file_stays_with_the_file(write):
    assert mistakes(write(GOOD + "  way: x\n"), "train.log_every=y") == [
        "spec.yaml:13: train.way: expected a whole number, got 'x'",
        "command line: train.log_every: expected a whole number, got 'y'",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        [("name: maml", "name: mamal"), ("inner_lr", "iner_lr")],
        [("name: maml", "name: nothing")],
        [("{name: omniglot}", "{name: omniglt, ink: 3}")],
        [("2000", "many"), ("{name: conv4}", "{name: conf4, filters: x}"), ("1e-3", "fast")],
        [("meta_batch: 4", "meta_batch: x\nseeds: [0, 0]\nname: y")],
        [("name: good", "extends: nothing\nname: good"), ("inner_lr: 0.4", "inner_lr: x")],
        [
            ("name: good", "extends: nothing\nname: good"),
            ("steps: 2000", "log_every: 1"),
            ("inner_lr: 0.4", "inner_lr: x"),
        ],
    ],
)
def test_fault_31_no_mistake_is_hidden_by_another(write, changes):
    """Tell a missing protocol, and the options of what is misnamed. Rejected: only the misnamed algorithm, or the
    first."""
    text = GOOD.replace("protocol: transductive\n", "")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    told = "\n".join(mistakes(write(text)))
    hidden = "extends:" in told  # the other file may have it
    assert ("protocol: is missing" in told) != hidden
    words = {
        "iner_lr": "did you mean inner_lr?",
        "ink: 3": "dataset.ink: expected 0 or 1",
        "filters: x": "network.filters",
    }
    words |= {"inner_lr: x": "algorithm.inner_lr: expected a number", "[0, 0]": "seeds: has a seed twice"}
    assert all(message in told for part, message in words.items() if part in text)

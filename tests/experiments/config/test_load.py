"""Specs: every mistake is found, all at once, with file, line, key and a way out; what ships is right."""

import json
import re
from itertools import takewhile

import pytest
import yaml
from shipped import ONE_OF_EACH, SHIPPED
from specs import GOOD, mistakes

from metarun.algorithms import ALGORITHMS
from metarun.datasets import DATASETS
from metarun.experiments.config.experiment import Experiment
from metarun.experiments.config.load import load, resolved_yaml
from metarun.experiments.errors import SpecError


def test_the_good_one_is_good(write):
    loaded = load(write(GOOD))
    assert loaded.experiment.optimizer.learning_rate == 1e-3  # PyYAML alone reads the text "1e-3"
    assert loaded.origins["algorithm.inner_lr"] == "spec.yaml:4"


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("steps: 2000", "step: 2000", 11, "train.step: unknown key; did you mean steps?"),
        ("  steps: 2000\n", "", 10, "train.steps: is missing: Meta-updates"),
        ("inner_lr: 0.4", "inner_lr: fast", 4, "algorithm.inner_lr: expected a number, got 'fast'"),
        ("inner_lr: 0.4", "inner_lr: -1", 4, "algorithm.inner_lr: expected a number greater than 0"),
        ("inner_lr: 0.4", "inner_lr: .nan", 4, "algorithm.inner_lr: expected a finite number"),
        ("steps: 2000", "steps: 1.5", 11, "train.steps: expected a whole number, got 1.5"),
        ("steps: 2000", "steps: yes", 11, "train.steps: expected a whole number, got 'yes'"),
        ("steps: 2000", "steps: true", 11, "train.steps: expected a whole number, got true"),
        ("  steps: 2000", "  steps: 2000\n  steps: 3000", 12, "train.steps: is given twice, first at spec.yaml:11"),
        ("name: maml", "name: mamal", 3, "unknown algorithm 'mamal'; did you mean maml?"),
        ("  name: maml\n", "", 2, "algorithm: has no name: expected `name:` with one of maml, reptile"),
        ("{name: conv4}", "{name: conv4, hidden: [4]}", 5, "network.hidden: has no effect: conv4 has no option hidden"),
        ("{name: conv4}", "{name: conv4, batch_norm: 1}", 5, "network.batch_norm: expected true or false, got 1"),
        ("{name: conv4}", "conv4", 5, "network: expected a section with keys of its own"),
        ("{name: omniglot}", "{name: omniglot, split: mine}", 6, "dataset.split: expected vinyals, "),
        ("transductive", "standard", 7, "protocol: expected transductive or inductive, got 'standard'"),
        ("protocol: transductive\n", "", 1, "protocol: is missing: How batch norm sees the queries"),
        ("learning_rate: 1e-3", "schedule: cosine\n  final_learning_rate: 1e-3", 9, "schedule: cosine has no"),
        ("learning_rate: 1e-3", "decay_every: 5", 9, "optimizer.decay_every: has no effect with schedule: constant"),
        ("learning_rate: 1e-3", "schedule: step", 8, "optimizer.decay_every: is missing"),
        ("learning_rate: 1e-3", "decay_steps: [5]", 9, "optimizer.decay_steps: has no effect with schedule: constant"),
        ("learning_rate: 1e-3", "schedule: step\n  decay_every: 5\n  decay_steps: [5]", 11,
         "optimizer.decay_steps: decay_every is given too: choose one"),
        ("learning_rate: 1e-3", "schedule: step\n  decay_steps: [5, 5]", 10,
         "optimizer.decay_steps: is [5, 5]: each step must be after the one before"),
        ("learning_rate: 1e-3", "schedule: step\n  decay_steps: []", 10, "optimizer.decay_steps"),
        ("learning_rate: 1e-3", "schedule: step\n  decay_steps: [5, x]", 10, "decay_steps.1: expected a whole number"),
        ("learning_rate: 1e-3", "schedule: step\n  decay_steps: [5]\n  decay_factors: [0.5, 1e-1]", 11,
         "optimizer.decay_factors: has 2 factors for 1 decay step: give one for each"),
        ("learning_rate: 1e-3", "schedule: step\n  decay_steps: [5]\n  decay_factor: 0.1\n  decay_factors: [0.5]", 12,
         "optimizer.decay_factors: decay_factor is given too"),
        ("learning_rate: 1e-3", "schedule: step\n  decay_every: 5\n  decay_factors: [0.5]", 11,
         "optimizer.decay_factors: has no effect without decay_steps"),
        ("learning_rate: 1e-3", "schedule: step\n  decay_steps: [5]\n  decay_factors: [2]", 11,
         "decay_factors.0: expected a number"),
        ("learning_rate: 1e-3", "momentum: 0.9", 9, "optimizer.momentum: is for sgd: adam has moments of its own"),
        ("learning_rate: 1e-3", "name: sgd\n  nesterov: true", 10, "optimizer.nesterov: has no effect without"),
        ("learning_rate: 1e-3", "name: sgd\n  dampening: 0.9", 10, "optimizer.dampening: has no effect without"),
        ("learning_rate: 1e-3", "name: sgd\n  momentum: 0.9\n  nesterov: true\n  dampening: 0.9", 12,
         "optimizer.dampening: contradicts nesterov, which is defined without"),
        ("learning_rate: 1e-3", "name: adamw", 8, "optimizer.weight_decay: is missing: without it adamw is adam"),
        ("learning_rate: 1e-3", "decay_norm: true", 9, "optimizer.decay_norm: has no effect without weight_decay"),
        ("learning_rate: 1e-3", "name: sgd\n  epsilon: 1e-5", 10, "optimizer.epsilon: has no effect with sgd"),
        ("{name: conv4}\ndataset: {name: omniglot}\nprotocol: transductive\noptimizer:\n  learning_rate: 1e-3",
         "{name: conv4, batch_norm: false}\ndataset: {name: omniglot}\nprotocol: inductive\noptimizer:\n"
         "  weight_decay: 1e-3\n  decay_norm: true", 10, "decay_norm: has no effect: the network has no batch norm"),
        ("meta_batch: 4", "meta_batch: 4\n  patience: 0", 13, "train.patience: expected a number at least 1"),
        ("meta_batch: 4", "meta_batch: 4\n  patience: 2\nvalidation: null", 13, "train.patience: needs validations"),
        ("meta_batch: 4", "meta_batch: 4\n  patience: 2\ntest: {checkpoint: last}", 13,
         "train.patience: ends the training 2 validations after the best one: write test.checkpoint: best"),
        ("meta_batch: 4", "meta_batch: 4\n  way: 3\ntest: {way: 5}", 14, "test.way: is 5: the last layer of maml has "),
        ("meta_batch: 4", "meta_batch: 4\n  way: 1", 13, "train.way: is 1: there is nothing to choose from"),
        ("inner_lr: 0.4", "inner_lr: 0.4\n  inner_steps: 0\n  first_order: true", 6, "no effect with inner_steps: 0"),
        ("{name: omniglot}", "{name: sinusoid}", 5, "network.name: conv4 reads images; sinusoid has numbers: use mlp"),
        ("name: maml\n  inner_lr: 0.4", "name: protonet\n  inner_steps: 2", 4, "protonet has no option inner_steps"),
        ("name: maml\n  inner_lr: 0.4", "name: reptile\n  inner_lr: 1\n  inner_batch: 5\n  serial: true\n"
         "  task_reduction: sum", 7, "algorithm.task_reduction: has no effect with serial: true"),
        ("{name: conv4}", "{name: conv4, norm_momentum: 0.5}", 5, "norm_momentum: has no effect: maml never uses"),
        ("  name: maml\n  inner_lr: 0.4\nnetwork: {name: conv4}", "  name: protonet\nnetwork: {name: conv4, "
         "norm_momentum: 0.5}", 4, "norm_momentum: has no effect: the transductive protocol never uses"),
        ("steps: 2000", "steps: !!bool x", 11, "train.steps: cannot be read: 'x' is no bool"),
        ("steps: 2000", "steps: !!timestamp x", 11, "train.steps: cannot be read: 'x' is no timestamp"),
        ("steps: 2000", 'steps: !!int ""', 11, "train.steps: cannot be read: '' is no int"),
        ("steps: 2000", "steps: !!float ''", 11, "train.steps: cannot be read: '' is no float"),
        ("{name: omniglot}", "{name: imagefolder, path: ~nobody-here/x}", 6, "dataset.path: is no path: Could not"),
        ("{name: omniglot}", '{name: imagefolder, path: "a\\0b"}', 6, "dataset.path: expected a path without NUL"),
        ("name: good", "name: ../../good", 1, "name: expected letters, digits"),
        ("meta_batch: 4", "meta_batch: 4\nseeds: [0, 0]", 13, "seeds: has a seed twice"),
        ("meta_batch: 4", "meta_batch: 4\nseeds: [0, -1]", 13, "seeds.1: expected a number at least 0, got -1"),
        ("name: good", "name: good\n<<: {steps: 1}", 2, "keys are plain words"),
        ("steps: 2000", "steps: [", 13, "not YAML"),
        ("steps: 2000", "steps: !!python/object/apply:os.system [true]", 11, "train.steps: "),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line_with_its_place(write, old, new, line, words):
    assert GOOD.count(old) == 1
    (problem,) = [each for each in mistakes(write(GOOD.replace(old, new))) if words in each]
    assert problem.startswith(f"spec.yaml:{line}: ")
    assert "\n" not in problem


def test_all_mistakes_at_once_in_the_order_of_the_file(write):
    text = GOOD.replace("inner_lr: 0.4", "inner_rl: 0.4").replace("conv4", "conf4").replace("2000", "many")
    problems = mistakes(write(text))
    places = [problem.split(": ")[0] for problem in problems]
    assert places == ["spec.yaml:2", "spec.yaml:4", "spec.yaml:5", "spec.yaml:11"]
    assert "algorithm.inner_lr: is missing" in problems[0] and "did you mean inner_lr?" in problems[1]


def test_mistakes_between_settings_are_found_beside_wrong_values(write):
    """Check the valid part of a spec. A check that needs an invalid value is silent, not misled by its
    default."""
    text = GOOD.replace("0.4", "fast\n  first_order: true\n  inner_steps: 0") + "  way: five\ntest: {way: 3}\n"
    text = text.replace("learning_rate: 1e-3", "decay_every: 5\n  shcedule: step") + "seeds: [0, 0]\nvalidation: null\n"
    problems = mistakes(write(text), "test.checkpoint=best", "network.batch_norm=maybe", "network.norm_scale=false")
    words = [
        "algorithm.inner_lr: expected a number",
        "algorithm.first_order: has no effect with inner_steps: 0",
        "optimizer.shcedule: unknown key; did you mean schedule?",
        "train.way: expected a whole number",
        "seeds: has a seed twice",
        "test.checkpoint: best needs a validation",
        "network.batch_norm: expected true or false",
    ]
    assert len(problems) == len(words)
    assert all(any(each in problem for problem in problems) for each in words)


@pytest.mark.parametrize("text", ["1e5", "08", "no", "2020-01-01", "0x1f", "1_000", "~", "a: b # c", "two\nlines\n",
                                  "a\r\x85\u2028\x07b", "'\"", "word " * 60, ""])  # fmt: skip
def test_text_stays_text_in_a_resolved_spec(write, tmp_path, text):
    written = json.dumps(text)
    loaded = load(write(GOOD), [f"description={written}", *([f"name={written}"] if text.isalnum() else [])])
    (tmp_path / "resolved.yaml").write_text(resolved_yaml(loaded.experiment))
    again = load(tmp_path / "resolved.yaml").experiment
    assert again == loaded.experiment and again.description == text
    lines = resolved_yaml(loaded.experiment).splitlines()
    assert len(lines) == len(resolved_yaml(load(write(GOOD)).experiment).splitlines())  # room for show's comments


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "this file is empty"),
        (b"- a\n", "this file is a list"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"a: &x [1]\nb: *x\n", "aliases"),
        (b"a: 1\n" * 300_000, "larger than"),
        (b"[" * 5000, "nested too deeply"),
        (b"a: {b: \n", "not YAML"),
        (b"a: \x00", "not YAML"),
        (b'a: "\\UFFFFFFFF"', "not YAML"),
        (b'a: "\\U00110000"', "not YAML"),
    ],
)
def test_files_that_are_no_specs(tmp_path, content, words):
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    (problem,) = mistakes(path)
    assert words in problem and "\n" not in problem


def test_names_that_are_no_specs(tmp_path):
    assert "did you mean omniglot/protonet or " in mistakes("omniglot/protnet")[0]
    assert "no such file" in mistakes(tmp_path / "nothing.yaml")[0]
    assert "is a folder" in mistakes(tmp_path)[0]
    assert "File name too long" in mistakes("x" * 300)[0]


def test_overrides(write):
    path = write(GOOD)
    loaded = load(path, ["train.steps=7", "algorithm.first_order=true", "validation=null", "seeds=[1, 2]"])
    told = loaded.experiment
    assert (told.train.steps, told.algorithm.first_order, told.validation, told.seeds) == (7, True, None, (1, 2))
    assert loaded.origins["train.steps"] == "command line"
    whole = load(path, ["network={name: mlp, hidden: [3], batch_norm: true}"]).experiment.network
    assert whole.hidden == (3,)
    assert load(path, ["published.value=1.5", "published.source=somewhere"]).experiment.published.value == 1.5
    for override, words in [
        ("train.steps", "expected key=value"),
        ("=5", "expected key=value"),
        ("train.stesp=5", "did you mean steps?"),
        ("train.steps.more=5", "steps is a value"),
        ("train.steps=-1", "at least 0, got -1"),
        ("train.steps=0", "is 0: maml learns by training"),
        ("train={steps: [}", "not YAML"),
    ]:
        assert any(words in problem for problem in mistakes(path, override)), override


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_specs_are_right_and_say_how_to_run_them(name):
    loaded = load(name)
    head = list(takewhile(lambda line: line.startswith("#"), loaded.path.read_text().splitlines()))
    assert head[0] == f"# metarun train {name}"
    assert re.search("second|minute|hour", " ".join(head).lower()), "says how long it takes"
    assert loaded.experiment.name == name.replace("/", "-")
    published, alone = (
        loaded.experiment.published,
        name.startswith(("quickstart/", "comparison/", "duan2016/", "lake2015/")),
    )
    assert bool(published) != alone, "says what to compare with"  # a table does of Duan et al. and of Lake et al.
    numbers = [float(number) for number in re.findall(r"\d+\.?\d*", " ".join(head))]
    if published and not name.startswith(("omniglot/", "miniimagenet/", "finn2017/sinusoid")):
        assert published.value in numbers and published.ci95 in (None, *numbers), "the head has the published number"


def test_the_cells_of_the_papers_ship():
    few = {f"omniglot-{way}way-{shot}shot" for way in (5, 20) for shot in (1, 5)}
    mini = {f"miniimagenet-5way-{shot}shot" for shot in (1, 5)}
    finn = few | mini | {f"{one}-first-order" for one in ("omniglot-5way-1shot", *mini)} | {"sinusoid"}
    snell = {f"{dataset}-{shot}shot" for dataset in ("omniglot", "miniimagenet") for shot in (1, 5)}
    meta_learners = ("maml", "maml-first-order", "reptile", "protonet", "matchingnet", "r2d2")
    classifiers = ("baseline", "baseline-plus-plus", "simpleshot")
    comparison = {f"omniglot-{one}" for one in (*meta_learners, *classifiers)}
    shipped = {"finn2017": finn, "nichol2018": few | mini, "snell2017": snell, "vinyals2016": few | mini}
    for paper, cells in (shipped | {"comparison": comparison}).items():
        assert {name.split("/")[1] for name in SHIPPED if name.startswith(f"{paper}/")} == cells


def test_a_cell_is_as_its_paper_trained_it():
    """Check that the recipes say what a name does not: MAML's inner step on the mean loss, clipped before Adam in the
    scale of the paper's loss; 60-way prototypes; ten shots for a one-shot Reptile."""
    for name, spec in SHIPPED.items():
        paper, _, cell = name.partition("/")
        if paper == "finn2017" and cell != "sinusoid":
            mini = cell.startswith("mini")
            assert spec.algorithm.inner_lr == pytest.approx((0.01 if mini else 2.0 / spec.train.way) * spec.train.way)
            assert (spec.protocol, spec.train.steps, spec.test.episodes) == ("transductive", 60000, 600)
            assert spec.test.query == spec.test.shot and not spec.network.norm_scale
            scale = spec.train.way * spec.train.query / spec.test.shot  # of the code's meta-loss to the mean one
            assert spec.optimizer.clip_value == (pytest.approx(10 / scale, rel=1e-3) if mini else None)
            assert spec.algorithm.first_order == cell.endswith("first-order")
        if paper == "nichol2018":
            assert spec.train.shot == (15 if cell.startswith("mini") else 10) and spec.algorithm.test_inner_steps == 50
        if paper == "snell2017":
            wide = {"omniglot-1shot": 60, "omniglot-5shot": 60, "miniimagenet-1shot": 30, "miniimagenet-5shot": 20}
            assert spec.train.way == wide[cell] and spec.train.shot == spec.test.shot and spec.protocol == "inductive"


def test_the_comparison_differs_in_the_learner_alone():
    specs = [spec for name, spec in SHIPPED.items() if name.startswith("comparison/")]
    assert len(specs) == 9
    for section in ("dataset", "network", "protocol", "test", "precision"):
        assert len({str(getattr(spec, section)) for spec in specs}) == 1, section


@pytest.mark.parametrize(
    ("spec", "changes", "told"),
    [
        ("maml", {"inner_steps": 5000}, "algorithm.test_inner_steps: expected a number at most 1000, got 5000"),
        ("maml", {"query": 2000}, "test.query: expected a number at most 1000, got 2000"),
        ("maml", {"way": 4}, "test.way: is 4: the last layer of maml has train.way = 5 outputs"),
        ("protonet", {"inner_steps": 1}, "--inner-steps has no effect: protonet has no inner loop"),
    ],
)
def test_a_test_that_does_not_fit_the_model_is_one_line(spec, changes, told):
    from metarun.experiments.config.variants import with_test

    with pytest.raises(SpecError) as caught:
        with_test(load(f"quickstart/{spec}").experiment, changes)
    (problem,) = caught.value.problems
    assert problem.startswith(told)


def test_a_trained_network_may_be_tested_in_either_protocol():
    """Check that the running averages have no effect in the transductive one: no mistake, they are there already."""
    from metarun.experiments.config.variants import with_test

    trained = load("quickstart/protonet", ["network.norm_momentum=0.5", "protocol=inductive"]).experiment
    assert with_test(trained, {"protocol": "transductive"}).protocol == "transductive"


@pytest.mark.parametrize("override", ["seeds=[0]", "validation=null", "test.checkpoint=last", "precision=float64"])
@pytest.mark.parametrize("name", ONE_OF_EACH.values())
def test_a_resolved_spec_is_a_spec_with_the_same_digest(name, override, tmp_path):
    if override.startswith("precision") and not SHIPPED[name].kind.is_trained:
        override = "test.episodes=7"  # it has no network
    first = load(name, [override]).experiment
    path = tmp_path / "spec.yaml"
    path.write_text(resolved_yaml(first))
    assert load(path).experiment == first and load(path).experiment.digest == first.digest


def test_without_validation_the_last_checkpoint_is_tested(write):
    silent, explicit = (load(write(GOOD), ["validation=null", *more]) for more in ([], ["test.checkpoint=last"]))
    assert silent.experiment.test.checkpoint == "last" and silent.experiment.digest == explicit.experiment.digest
    assert "best needs a validation" in mistakes(write(GOOD), "validation=null", "test.checkpoint=best")[0]


def test_checks_that_need_no_invalid_value_are_not_skipped(write):
    """Reject contradictions of a section that are hidden by a wrong value in it or beside it."""
    text = GOOD.replace("learning_rate: 1e-3", "schedule: x\n  clip_norm: 1\n  clip_value: 1")
    text = text.replace("inner_lr: 0.4", "inner_lr: 0.4\n  adapt: all").replace("meta_batch: 4", "meta_batch: x")
    text = text.replace("{name: conv4}", "{name: conv4, batch_norm: false}") + "validation: {way: 3}\ntest: {way: x}\n"
    told = "\n".join(mistakes(write(text)))
    for words in (
        "clip_value is given too",
        "adapt: all is the same as weights",
        "validation.way: is 3: the last layer",
    ):
        assert words in told


def test_the_digest_names_what_decides_a_result(write):
    path = write(GOOD)
    digest = load(path).experiment.digest
    assert load(path, ["name=other", "seeds=[4]", "description=text"]).experiment.digest == digest
    changes = [
        "algorithm.inner_lr=0.5",
        "dataset.ink=0",
        "protocol=inductive",
        "precision=float64",
        "test.episodes=700",
    ]
    assert len({digest} | {load(path, [change]).experiment.digest for change in changes}) == 1 + len(changes)
    assert len({spec.digest for spec in SHIPPED.values()}) == len(SHIPPED)


def test_the_digest_is_kept_where_an_option_is_newer():
    """Reject `dataset.episodes: any` in the digest: specs of before have no such key."""
    plain, any_, within = (
        load("omniglot/maml", overrides).experiment
        for overrides in ([], ["dataset.episodes=any"], ["dataset.episodes=within-alphabet"])
    )
    assert plain.digest == any_.digest != within.digest


def test_a_relative_folder_starts_at_the_spec(write, tmp_path):
    path = write(GOOD.replace("{name: omniglot}", "{name: imagefolder, path: pictures}"))
    assert load(path).experiment.dataset.path == (tmp_path / "pictures").resolve()


def test_every_option_is_explained_and_in_the_schema():
    models = [entry.options for entry in ALGORITHMS.values()] + list(DATASETS.values())
    unexplained = [
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if name != "name" and not field.description
    ]
    assert unexplained == []
    schema = json.dumps(Experiment.model_json_schema())
    assert all(model.__name__ in schema for model in models)
    assert yaml.safe_load(schema)["additionalProperties"] is False


def test_a_misspelt_name_beside_the_name_is_an_unknown_key(tmp_path):
    """Reject an algorithm without its name, which ends the checks in a traceback."""
    (tmp_path / "child.yaml").write_text("extends: quickstart/protonet\nname: child\nalgorithm: {nam: protonet}\n")
    with pytest.raises(SpecError, match="algorithm.nam: unknown key of protonet; did you mean name?"):
        load(tmp_path / "child.yaml")


@pytest.mark.parametrize(
    ("name", "warned"),
    [("finn2017/miniimagenet-5way-1shot", True), ("omniglot/maml", False), ("quickstart/protonet", False)],
)
def test_bfloat16_is_told_where_it_is_not_shown_to_learn_as_well(name, warned):
    warnings = load(name, ["precision=bfloat16"]).warnings
    assert warned == any("bfloat16 (command line) is not shown to learn as well with maml" in one for one in warnings)
    assert not load(name).warnings

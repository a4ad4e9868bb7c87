"""`metarun describe`: every name of a spec has a page, and what a page shows can be copied."""

import pytest
import yaml
from command import metarun

from metarun.experiments.config.document import read
from metarun.experiments.config.experiment import CHOICES, SECTIONS, Experiment
from metarun.experiments.config.load import load
from metarun.experiments.config.reference import SPEC, names, page
from metarun.experiments.errors import SpecError


def test_the_whole_spec_loads(tmp_path):
    for name in ("", "spec"):
        assert page(name).snippet == SPEC
    path = tmp_path / "my.yaml"
    path.write_text(SPEC)
    assert load(path).experiment.algorithm.name == "maml"


@pytest.mark.parametrize("first", dict.fromkeys(name.partition(".")[0] for name in names()))
def test_what_a_page_shows_is_valid_where_it_belongs(first, tmp_path):
    """Reject a value out of its range. Every section by its own model, every other key by the whole experiment."""
    for name in names():
        if name.partition(".")[0] != first:
            continue
        found = page(name)
        assert found.options or found.lists or found.text
        (tmp_path / "snippet.yaml").write_text(found.snippet)
        values = read(tmp_path / "snippet.yaml").values
        for key, value in values.items():
            section = CHOICES[key].get(value.get("name")) if key in CHOICES else SECTIONS.get(key)
            if section:
                section.model_validate(value)
            else:
                Experiment.model_validate(yaml.safe_load(SPEC) | {key: value})
        if key := name.partition(".")[2]:
            ((_, inner),) = values.items()
            assert inner[key] is not None


def test_keys_are_explained_for_all_that_have_them():
    options = {option.key: option for option in page("algorithm.inner_lr").options}
    assert options.keys() == {"maml.inner_lr", "reptile.inner_lr"}
    assert options["maml.inner_lr"].default == "required" and "alpha" in options["maml.inner_lr"].description
    (same,) = page("network.norm_scale").options
    assert same.key == "conv4.norm_scale, resnet12.norm_scale, mlp.norm_scale"
    (shot,) = page("train.shot").options
    assert shot[1:] == (
        "whole number (>= 1, <= 1000)",
        "default 1",
        "Support images per class (regression: points per task).",
    )


def test_names_that_are_nearly_right():
    for wrong, meant in (
        ("mamal", "maml"),
        ("inner_lr", "algorithm.inner_lr"),
        ("shot", "train.shot or validation.shot or test.shot"),
        ("train.shto", "train.shot"),
        ("maml.distance", None),
        ("xyzzy", None),
    ):
        with pytest.raises(SpecError) as error:
            page(wrong)
        hint = f"did you mean {meant}?" if meant else ""
        assert str(error.value).startswith(f"nothing is called {wrong!r}; {hint}")


def test_the_list_and_a_page_as_they_are_printed():
    text = metarun("describe").stdout
    assert all(f"\n  {name} " in text for name in [*Experiment.model_fields, "maml", "conv4", "bandits"])
    assert metarun("describe", "seeds").stdout.endswith("In a spec:\n\n  seeds: [0, 1, 2]\n")
    assert metarun("describe", "mamal", code=2).stderr == "nothing is called 'mamal'; did you mean maml?\n"

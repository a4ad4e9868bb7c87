"""Tests of the plan of a table: budgets, variants and seeds of its cells."""

from collections import Counter

import pytest
from sines import SPEC

from metarun.experiments.config.variants import within_budget
from metarun.experiments.errors import SpecError
from metarun.experiments.papers.definition import load_table
from metarun.experiments.papers.plan import choose, plan


def test_what_a_schedule_places_within_the_training_follows_the_budget(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC + "optimizer: {schedule: step, decay_every: 20}\n")
    small, full = within_budget(str(path), 0.1)
    assert (small.train.steps, small.optimizer.decay_every) == (4, 20)  # rejected: 2
    assert (full.train.steps, full.optimizer.decay_every) == (40, 20)
    assert within_budget(str(path), 1e-6)[0].train.steps == 1
    path.write_text(SPEC + "optimizer: {schedule: step, decay_steps: [20, 24, 40], decay_factors: [0.5, 0.1, 0.2]}\n")
    assert within_budget(str(path), 0.5)[0].optimizer.decay_steps == (10, 12, 20)
    few, _ = within_budget(str(path), 0.1)
    assert few.optimizer.decay_steps == (2, 3, 4)  # rejected: (2, 2, 4), which is no schedule
    assert few.optimizer.decay_factors == (0.5, 0.1, 0.2)
    untrained, same = within_budget("duan2016/bandits-random", 0.1)
    assert untrained is same and untrained.name == "duan2016-bandits-random"


def test_a_variant_is_a_recipe_and_overrides_are_a_part_of_it(tmp_path):
    """Check that RL^2 with 100 pulls trains on 2,500 trials, not the 25,000 of the spec; 250 x 300 of 2,500 x 1,000 are
    3 %. A budget is a share of the cell's own training, under its own name."""
    (whole,) = choose(plan(load_table("duan2016-bandits"), tmp_path, seeds=[0]), "n100-k5-rl2")
    assert (whole.experiment.name, whole.budget) == ("duan2016-bandits-n100-k5-rl2", 1)
    (tenth,) = choose(plan(load_table("duan2016-bandits"), tmp_path, seeds=[0], budget=0.1), "n100-k5-rl2")
    assert (tenth.experiment.name, tenth.budget) == ("duan2016-bandits-n100-k5-rl2-budget-0.1", 0.1)
    (small,) = choose(plan(load_table("duan2016-bandits-small"), tmp_path, seeds=[0]), "n100-k5-rl2")
    assert small.experiment.name == "duan2016-bandits-n100-k5-rl2-250-trials"
    assert (small.budget, small.experiment.dataset.pulls) == (pytest.approx(0.03), 100)


def test_a_precision_is_of_what_is_trained_and_has_names_of_its_own(tmp_path):
    """Reject a run in bfloat16 that takes the folder of the one in float32, and a refusal of untrained methods."""
    table = load_table("snell2017-miniimagenet")
    (half,) = choose(plan(table, tmp_path, seeds=[0], budget=0.5, precision="bfloat16"), "5way-5shot")
    assert half.experiment.name == "snell2017-miniimagenet-5shot-budget-0.5-bfloat16"
    assert (half.experiment.precision, half.full.precision, half.budget) == ("bfloat16", "float32", 0.5)
    (own,) = choose(plan(table, tmp_path, seeds=[0], precision="float32"), "5way-5shot")
    assert own.experiment == own.full
    planned = plan(load_table("duan2016-bandits-small"), tmp_path, precision="float64")
    assert {one.experiment.precision for one in planned if one.experiment.train.steps} == {"float64"}
    assert {one.experiment.precision for one in planned if not one.experiment.train.steps} == {"float32"}
    with pytest.raises(SpecError, match="bfloat16 is for images"):
        plan(load_table("duan2016-bandits-small"), tmp_path, precision="bfloat16")


def test_no_seed_changes_a_classical_method(tmp_path):
    planned = plan(load_table("duan2016-bandits-small"), tmp_path, seeds=range(2))
    seeds = Counter(one.cell.method for one in planned if one.cell.column == "n = 10, k = 5")
    assert seeds["RL^2"] == 2 and seeds["UCB1"] == 1

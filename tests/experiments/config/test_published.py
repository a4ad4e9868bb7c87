"""Published numbers: what cannot be in percent is refused."""

import pytest

from metarun.experiments.config.load import load
from metarun.experiments.errors import SpecError

TINY = """name: tiny
algorithm: {name: protonet}
network: {name: mlp, hidden: [16]}
dataset: {name: glyphs}
protocol: inductive
train: {steps: 20}
published: {source: a paper, PUBLISHED}
"""


@pytest.mark.parametrize(
    ("published", "words"),
    [
        ("value: 0.987", "published.value: is 0.987, and accuracies are in percent: 98.7?"),
        ("value: 1", "published.value: is 1, and accuracies are in percent: 100?"),
        ("value: 987", "published.value: is 987: an accuracy is between 0 and 100 percent"),
        ("value: -3", "published.value: is -3: an accuracy is between 0 and 100 percent"),
        ("value: 98.7, ci95: 0.004", "published.ci95: is 0.004, and accuracies are in percent: 0.4?"),
        ("value: 48.7, ci95: 0.0184", "published.ci95: is 0.0184, and accuracies are in percent: 1.84?"),
        ("value: 48.7, ci95: 184", "published.ci95: is 184: an accuracy is between 0 and 100 percent"),
        ("value: 0.487, ci95: 0.0184", "in percent: 1.84?"),
    ],
)
def test_fault_07_published_accuracies_that_are_no_percentages_are_refused(tmp_path, published, words):
    """Reject a difference of 56 points to a fraction."""
    (tmp_path / "tiny.yaml").write_text(TINY.replace("PUBLISHED", published))
    with pytest.raises(SpecError) as told:
        load(tmp_path / "tiny.yaml")
    assert f"tiny.yaml:7: {words}" in str(told.value) or words.startswith("in percent") and words in str(told.value)


@pytest.mark.parametrize(
    ("published", "overrides"),
    [
        ("value: 98.7, ci95: 0.4", []),
        ("value: 99.9, ci95: 0.02", []),
        ("value: 70.2, ci95: 0.1", []),  # of 10,000 episodes
        ("value: 0.9", ["dataset.name=omniglot", "train.way=200", "test.way=200"]),  # above guessing
        ("value: 0.35", ["dataset={name: sinusoid}", "algorithm={name: maml, inner_lr: 0.01}", "train.way=1",
                         "test.way=1"]),  # a squared error
    ],
)  # fmt: skip
def test_published_numbers_that_may_be_right_are_taken(tmp_path, published, overrides):
    (tmp_path / "tiny.yaml").write_text(TINY.replace("PUBLISHED", published))
    assert load(tmp_path / "tiny.yaml", overrides).experiment.published

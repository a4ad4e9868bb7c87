"""A spec without a mistake, and the mistakes of others."""

import pytest

from metarun.experiments.config.load import load
from metarun.experiments.errors import SpecError

GOOD = """\
name: good
algorithm:
  name: maml
  inner_lr: 0.4
network: {name: conv4}
dataset: {name: omniglot}
protocol: transductive
optimizer:
  learning_rate: 1e-3
train:
  steps: 2000
  meta_batch: 4
"""


def mistakes(path, *overrides):
    with pytest.raises(SpecError) as caught:
        load(path, overrides)
    return caught.value.problems

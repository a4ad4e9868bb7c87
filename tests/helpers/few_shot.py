"""Few-shot learners as tests build them: the options of each, and a learner for inputs of a shape."""

from types import SimpleNamespace

import tensorflow as tf

from metarun.algorithms import ALGORITHMS, KINDS
from metarun.algorithms.build import Setup, build
from metarun.algorithms.heads.options import CosineHeadOptions, LinearHeadOptions
from metarun.algorithms.options import (
    BaselineOptions,
    BaselinePlusPlusOptions,
    MAMLOptions,
    MatchingNetworkOptions,
    ReptileOptions,
)
from metarun.datasets.tasks import LabelledImages
from metarun.experiments.training.conformance import example

FEW_SHOT = [name for name, entry in ALGORITHMS.items() if entry.kind in ("few-shot", "classifier")]
WHOLE = {"epochs": 5, "batch": 1000}  # of a trained head: mini-batches of all support images, in any order
OPTIONS = {name: example(name).algorithm for name in FEW_SHOT} | {
    "maml": MAMLOptions(inner_lr=0.3, inner_steps=2),
    "reptile": ReptileOptions(inner_lr=0.01, inner_steps=3, inner_batch=3),
    "matchingnet": MatchingNetworkOptions(full_context_embeddings=True),
    "baseline": BaselineOptions(head=LinearHeadOptions(**WHOLE)),
    "baseline++": BaselinePlusPlusOptions(head=CosineHeadOptions(**WHOLE)),
}


def learner(options, network, protocol, input_shape=(16, 16, 1), way=3, regression=False, **setup):
    """Build a learner for tasks of this shape, without a source of tasks."""
    target_shape = (1,) if regression else ()
    source = SimpleNamespace(
        input_shape=input_shape, regression=regression, target_shape=target_shape, classes=lambda split: 6
    )
    return build(Setup(options, network, protocol=protocol, way=way, **({"steps": 10} | setup)), source)


def for_training(name, batch):
    """Return tasks as a learner trains on them: images of their classes for a classifier."""
    if not KINDS[ALGORITHMS[name].kind].trains_on_images:
        return batch
    images = tf.reshape(batch.support_x, (-1, *batch.support_x.shape[2:]))
    labels = tf.reshape(batch.support_y, [-1])
    return LabelledImages(images, labels, labels[:, None])

"""The example in a model card: ten lines that run without metarun."""

from __future__ import annotations

from ...datasets.images.preprocessing import HALF, Preprocessing
from .request import Kind

LOAD = """\
model = tf.saved_model.load("saved_model").signatures["serving_default"]
"""
READ = """\
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image


def read(path):
    image = Image.open(path).convert("{mode}")
{way}    image = image.resize(({width}, {height}), {resampling})
    return np.asarray(image).reshape({height}, {width}, {channels}){more}


"""
BINARY = """\
    drawn = set(np.unique(image)) <= {0, 255}  # black and white already
    way = Image.Resampling.NEAREST if drawn else Image.Resampling.LANCZOS
"""
FITTED = """\
images = np.stack([read(path) for path in sys.argv[1:]])
answers = model(images=tf.constant(images, tf.uint8))
for path, label, probabilities in zip(sys.argv[1:], answers["label"].numpy(), answers["probabilities"].numpy()):
    print(path, label.decode(), probabilities.max())
"""
ADAPTING = """\
names = sorted(folder.name for folder in Path("support").iterdir())
support = [(read(path), label) for label, name in enumerate(names) for path in Path("support", name).iterdir()]
images, labels = zip(*support)
answers = model(
    support_images=tf.constant(np.stack(images), tf.uint8),
    support_labels=tf.constant(labels, tf.int32),
    query_images=tf.constant(np.stack([read(path) for path in sys.argv[1:]]), tf.uint8),
)
for path, probabilities in zip(sys.argv[1:], answers["probabilities"].numpy()):
    print(path, names[probabilities.argmax()], probabilities.max())
"""
REGRESSION = """\
import numpy as np
import tensorflow as tf

{load}inputs = model.structured_input_signature[1]
points = {{name: tf.zeros([10, *spec.shape[1:]], spec.dtype) for name, spec in inputs.items()}}  # yours
print(model(**points)["predictions"].numpy())
"""
POLICY = """\
import tensorflow as tf

signatures = tf.saved_model.load("saved_model").signatures
step, seen = signatures["serving_default"], signatures["initial_state"](trials=tf.constant(1))
spec = step.structured_input_signature[1]["observation"]
for _ in range(10):
    observation = tf.zeros([1, *spec.shape[1:]], spec.dtype)  # of your environment
    answer = step(observation=observation, **seen)
{act}
    seen |= {{"state": answer["state"], "previous_action": action}}
    seen |= {{"previous_reward": tf.zeros(1), "previous_done": tf.constant([False])}}  # of your environment
    print(action.numpy())
"""
DISCRETE = """\
    action = tf.random.categorical(tf.math.log(answer["action_probabilities"]), 1, tf.int32)[:, 0]"""
BOX = """\
    action = tf.random.normal(answer["action_mean"].shape, answer["action_mean"], answer["action_deviation"])"""


def example(kind: Kind, images: Preprocessing | None, has_support: bool, discrete: bool = True) -> str:
    """Return the lines of Python.

    Args:
        kind: what is exported.
        images: of a classifier, what its images are.
        has_support: whether a classifier has its support set inside.
        discrete: whether the actions of a policy are integers.
    """
    if kind == "policy":
        return POLICY.format(act=DISCRETE if discrete else BOX)
    if images is None:
        return REGRESSION.format(load=LOAD)
    read = READ.format(
        mode="L" if images.channels == 1 else "RGB",
        height=images.height,
        width=images.width,
        channels=images.channels,
        way=BINARY if images.binary else "",
        resampling="way" if images.binary else "Image.Resampling.LANCZOS",
        more=f" // {HALF} * 255" if images.binary else "",
    )
    return read + LOAD + (FITTED if has_support else ADAPTING)

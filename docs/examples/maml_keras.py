"""Second-order MAML for a Keras model of your own, on drawn letters: 100 meta-updates of 4 tasks each."""

import keras

from metarun.algorithms.maml import maml
from metarun.datasets import build
from metarun.datasets.options import GlyphsOptions
from metarun.datasets.tasks import Shape

keras.utils.set_random_seed(0)
source = build(GlyphsOptions())
model = keras.Sequential(
    [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(64, "relu"), keras.layers.Dense(5)]
)
outer = keras.optimizers.Adam(1e-3)
for index in range(0, 400, 4):
    tasks = source.sample("train", index, tasks=4, shape=Shape(way=5, shot=1, query=5), seed=0)
    loss = maml(model, keras.optimizers.SGD(0.1), outer, tasks)
    if index % 80 == 0:
        print(f"tasks {index:3}: meta-loss {float(loss):.3f}")

"""Second-order MAML for a Keras model of your own, on drawn letters: 200 meta-updates, then a test on new alphabets."""

import keras

from metarun.algorithms.maml import maml
from metarun.datasets import build
from metarun.datasets.options import GlyphsOptions
from metarun.datasets.tasks import Shape

keras.utils.set_random_seed(0)
source, shape = build(GlyphsOptions()), Shape(way=5, shot=1, query=5)
model = keras.Sequential(
    [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(64, "relu"), keras.layers.Dense(5)]
)
inner, outer = keras.optimizers.SGD(0.5), keras.optimizers.Adam(1e-3)
for step in range(200):
    tasks = source.sample("train", 4 * step, tasks=4, shape=shape, seed=0)
    loss = maml(model, inner, outer, tasks)
    if step % 50 == 0:
        print(f"step {step:3}: meta-loss {float(loss):.3f}")

learner = keras.models.clone_model(model)  # adapts to one task after another; the meta-trained model stays as it is
learner.compile(inner, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
accuracies = {"before": 0.0, "after": 0.0}
for number in range(50):
    support_x, support_y, query_x, query_y = (
        part[0] for part in source.sample("test", number, tasks=1, shape=shape, seed=0)[:4]
    )
    learner.set_weights(model.get_weights())
    accuracies["before"] += learner.test_on_batch(query_x, query_y)[1] / 50
    learner.train_on_batch(support_x, support_y)
    accuracies["after"] += learner.test_on_batch(query_x, query_y)[1] / 50
for moment, accuracy in accuracies.items():
    print(f"accuracy {moment} adaptation: {100 * accuracy:.1f} %")

"""Second-order MAML for a Keras model of your own, on drawn letters: 150 meta-updates, then a test on new alphabets."""

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
for step in range(150):
    tasks = source.sample("train", 4 * step, tasks=4, shape=shape, seed=0)
    loss = maml(model, inner, outer, tasks)
    if step % 50 == 0:
        print(f"step {step:3}: meta-loss {float(loss):.3f}")

learner = keras.models.clone_model(model)  # adapts to one task after another; the meta-trained model stays as it is
learner.compile(inner, keras.losses.SparseCategoricalCrossentropy(from_logits=True))


def accuracy(x, y):
    """Return the fraction of right answers."""
    return (learner.predict_on_batch(x).argmax(axis=-1) == y.numpy()).mean()


before, after = [], []
for number in range(60):
    episode = source.sample("test", number, tasks=1, shape=shape, seed=0)
    support_x, support_y, query_x, query_y = (part[0] for part in episode[:4])
    learner.set_weights(model.get_weights())
    before.append(accuracy(query_x, query_y))
    learner.train_on_batch(support_x, support_y)  # one step of the inner optimizer
    after.append(accuracy(query_x, query_y))
for moment, accuracies in (("before", before), ("after", after)):
    print(f"accuracy {moment} adaptation: {100 * sum(accuracies) / len(accuracies):.1f} %")

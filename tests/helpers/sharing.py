"""A worker of the tests: trains every learner for some steps and, if it is the chief, keeps all variables.

    python sharing.py FILE PRECISION        TF_CONFIG says who the others are; without it this is the one worker

Float32: where a gradient is exactly zero, as that of a prototypical network's last offset, Adam makes steps of full
size out of what rounding leaves of it; and rounding decides which of the equal pixels of a flat background max-pooling
takes. So the learners of images take SGD and strides then; in float64 they agree with Adam and max-pooling too.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from metarun.algorithms.workers import ALONE, Share, Workers, join
from metarun.experiments.config.experiment import Experiment
from metarun.experiments.jobs.rendezvous import find
from metarun.experiments.model import build
from metarun.experiments.training.steps import TrainingSteps

STEPS = 20
MLP = {"network": {"name": "mlp", "hidden": [16]}, "dataset": {"name": "sinusoid"}, "protocol": "inductive"}
MLP |= {"test": {"way": 1}}
CONV = {"network": {"name": "conv4", "filters": 8}, "dataset": {"name": "glyphs"}, "protocol": "inductive"}
NORM = CONV | {"network": {"name": "mlp", "hidden": [16], "batch_norm": True}}
PLAIN = CONV | {"network": {"name": "mlp", "hidden": [16]}}
POINTS = {"way": 1, "shot": 5, "query": 5, "meta_batch": 5}
IMAGES = {"way": 5, "shot": 1, "query": 3, "meta_batch": 4}
CASES = {
    "maml": MLP
    | {"algorithm": {"name": "maml", "inner_lr": 0.01, "tasks_per_chunk": 5}, "train": POINTS, "jit": "on"}
    | {"optimizer": {"clip_norm": 1.0}},
    "maml, sum": MLP
    | {"algorithm": {"name": "maml", "inner_lr": 0.01, "task_reduction": "sum"}, "train": POINTS}
    | {"optimizer": {"name": "sgd", "learning_rate": 1e-3}},
    "reptile": MLP
    | {"algorithm": {"name": "reptile", "inner_lr": 0.01, "inner_batch": 5}, "train": POINTS}
    | {"optimizer": {"name": "sgd", "learning_rate": 0.5, "schedule": "linear"}},
    "protonet": CONV | {"algorithm": {"name": "protonet"}, "train": IMAGES},
    "matchingnet": NORM
    | {"algorithm": {"name": "matchingnet", "temperature": 0.1, "full_context_embeddings": True}, "train": IMAGES},
    "r2d2": NORM | {"algorithm": {"name": "r2d2"}, "train": IMAGES},
    "baseline": PLAIN | {"algorithm": {"name": "baseline"}, "train": {"meta_batch": 6}},
    "baseline++": PLAIN | {"algorithm": {"name": "baseline++"}, "train": {"meta_batch": 6}},
    "simpleshot": PLAIN | {"algorithm": {"name": "simpleshot"}, "train": {"meta_batch": 6}},
    "rl2": {
        "algorithm": {"name": "rl2", "minibatch": 8},
        "network": {"name": "gru", "units": 8},
        "dataset": {"name": "bandits", "arms": 3, "pulls": 5},
        "train": {"meta_batch": 18},  # mini-batches of 8, 8 and 2: four workers have nothing for each in the last
    },
}


WRONG = ("no sum", "same tasks", "unweighted")


class Deaf(Workers):
    """Leave out the sum, a wrong variant."""

    def total(self, values):
        return values


class Unweighted(Share):
    """Take, as a wrong variant, the mean of the workers' means, however many tasks each has."""

    def mean(self, values, tasks):
        return Share(self.workers, before=(self.workers.count - 1) * tasks).mean(values, tasks)


def variables(name: str, precision: str, workers: Workers, wrong: str = "") -> list[np.ndarray]:
    """Train a case and return the variables after it."""
    case = CASES[name]
    case = case | {"train": case["train"] | {"steps": STEPS}}
    if precision == "float32" and case["dataset"]["name"] == "glyphs":
        case |= {"optimizer": {"name": "sgd", "learning_rate": 1e-3}}
        if name == "protonet":
            case |= {"network": case["network"] | {"downsample": "stride"}}
    if name == "rl2":
        case |= {"jit": "on" if precision == "float32" else "off"}
    if wrong:
        case |= {"jit": "off"}
    experiment = Experiment(name="shared", precision=precision, **case)
    model = build(experiment, 0, workers=workers)
    steps = TrainingSteps(model)
    if wrong == "no sum":
        steps.share = steps.share._replace(workers=Deaf(workers.index, workers.count))
    elif wrong == "same tasks":
        steps.share = steps.share._replace(before=0)
    elif wrong == "unweighted":
        steps.share = Unweighted(*steps.share)
    steps.take(STEPS)
    return [variable.numpy() for variable in model.learner.variables]


def main() -> None:
    file, precision = sys.argv[1:]
    cluster = find()
    workers = join(cluster.addresses, cluster.index) if cluster else ALONE
    found = {name: variables(name, precision, workers) for name in CASES}
    if workers.count == 2:
        found |= {wrong: variables("maml", precision, workers, wrong) for wrong in WRONG}
    if workers.index == 0:
        np.savez(file, **{f"{name}/{number}": x for name, xs in found.items() for number, x in enumerate(xs)})


if __name__ == "__main__":
    main()

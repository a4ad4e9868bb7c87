"""Few-shot learners as tests build them: the options of each, and a learner for inputs of a shape."""

from types import SimpleNamespace

from metarun.algorithms import ALGORITHMS
from metarun.algorithms.build import Setup, build
from metarun.algorithms.options import MAMLOptions, MatchingNetworkOptions, ReptileOptions
from metarun.experiments.training.conformance import example

OPTIONS = {name: example(name).algorithm for name, entry in ALGORITHMS.items() if entry.kind == "few-shot"} | {
    "maml": MAMLOptions(inner_lr=0.3, inner_steps=2),
    "reptile": ReptileOptions(inner_lr=0.01, inner_steps=3, inner_batch=3),
    "matchingnet": MatchingNetworkOptions(full_context_embeddings=True),
}


def learner(options, network, protocol, input_shape=(16, 16, 1), way=3, regression=False, **setup):
    """Build a learner for tasks of this shape, without a source of tasks."""
    target_shape = (1,) if regression else ()
    source = SimpleNamespace(input_shape=input_shape, regression=regression, target_shape=target_shape)
    return build(Setup(options, network, protocol=protocol, way=way, **({"steps": 10} | setup)), source)

"""The options of each few-shot learner, as tests use them."""

from metarun.algorithms.options import MAMLOptions, MatchingNetworkOptions, PrototypicalNetworkOptions, ReptileOptions

OPTIONS = {
    "maml": MAMLOptions(inner_lr=0.3, inner_steps=2),
    "reptile": ReptileOptions(inner_lr=0.01, inner_steps=3, inner_batch=3),
    "protonet": PrototypicalNetworkOptions(),
    "matchingnet": MatchingNetworkOptions(full_context_embeddings=True),
}

"""Inductive: what is said of one query does not change with the other queries. Transductive: it does."""

import few_shot
import numpy as np
import pytest
from few_shot import OPTIONS

from metarun.algorithms import ALGORITHMS, KINDS
from metarun.algorithms.adaptation import predict_queries
from metarun.algorithms.learner import Problem
from metarun.algorithms.networks import feedforward
from metarun.algorithms.networks.options import Conv4Options
from metarun.datasets.tasks import Shape


@pytest.mark.parametrize("protocol", ["inductive", "transductive"])
@pytest.mark.parametrize("name", OPTIONS)
def test_one_query_and_the_others(make_source, name, protocol):
    batch = make_source(dtype="float64").sample("test", 0, 2, Shape(3, 2, 2), seed=0)
    changed = batch.query_x.numpy()
    changed[:, 1:] = 1 - changed[:, 1:]  # every query but the first
    other = batch._replace(query_x=changed)
    model = few_shot.learner(OPTIONS[name], Conv4Options(filters=4), protocol, precision="float64")

    def first_query(episode):
        one = episode._replace(query_y=episode.query_y[:, :1])
        model.problem = Watched(False, protocol)
        return model.evaluate(one)["outputs"].numpy()[:, 0]

    difference = np.abs(first_query(batch) - first_query(other)).max()
    alone = protocol == "inductive" or KINDS[ALGORITHMS[name].kind].trains_on_images  # these are never transductive
    assert difference < 1e-9 if alone else difference > 1e-3


def test_inductive_is_each_query_beside_all_supports(make_source):
    """Reject the answer for another image of its batch, here the first support image."""
    batch = make_source(dtype="float64").sample("test", 0, 2, Shape(3, 2, 2), seed=0)
    network = feedforward.build(Conv4Options(filters=4), (16, 16, 1), 3, "float64", seed=0)
    found = predict_queries(network, network.parameters, batch.support_x, batch.query_x, "inductive").numpy()
    for query in range(6):
        beside = np.concatenate([batch.support_x, batch.query_x[:, query : query + 1]], axis=1)
        outputs = network(network.parameters, beside).numpy()
        np.testing.assert_allclose(found[:, query], outputs[:, -1], atol=1e-10)
        assert np.abs(found[:, query] - outputs[:, 0]).max() > 1e-3


class Watched(Problem):
    """Return the raw outputs as metrics of a problem."""

    def metrics(self, outputs, targets, steps=(0,)):
        return {"outputs": outputs[-1]}

"""Import small copies of published datasets, and look at what came of it."""

import numpy as np
import pytest

from metarun.datasets import DATASETS
from metarun.datasets import build as build_source
from metarun.datasets.errors import DataError
from metarun.datasets.images import cache, published


def imported(name, *paths):
    published.import_from(published.layout_of(name), paths)
    return build_source(DATASETS[name]())


def refused(name, *paths):
    with pytest.raises(DataError) as told:
        published.import_from(published.layout_of(name), paths)
    assert not list(cache.folder().glob("*.npy")), "something is kept"
    return str(told.value)


def of_class(source, split, name):
    """Return the images of a class in a pool."""
    pool = source.pools[split]
    number = pool.names.index(name)
    first = int(pool.counts[:number].sum())
    return np.asarray(pool.images[first : first + pool.counts[number]])

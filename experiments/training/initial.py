"""Start a training from the weights of another run, `network.init` in its spec."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...algorithms.networks.feedforward import Network
from ...datasets.errors import first_of
from ..errors import RunError
from ..model import Model
from ..runs.weights import weights_of


def names_of(learner: Any) -> dict[str, int]:
    """Return the number of each parameter and running average among the variables of a learner, by its name."""
    running = getattr(getattr(learner, "network", None), "running", {})
    names = {id(variable): name for name, variable in [*running.items(), *learner.parameters.items()]}
    return {names[id(one)]: number for number, one in enumerate(learner.variables) if id(one) in names}


def initialise(model: Model) -> str:
    """Give a new model the weights of the run that `network.init` names, and return in words what it took.

    Parameters and running averages of equal name and shape are taken. All of the body must match. What else the source
    lacks, or has in another shape, such as a last layer of other ways, starts afresh.

    Returns:
        Words such as "starts from the weights of runs/NAME/seed-0"; "" without `network.init`.

    Raises:
        RunError: the source is missing, has other weights than the spec of the run says, or does not match.
    """
    network: Any = model.experiment.network
    place = getattr(network, "init", None)
    if place is None:
        return ""
    source, own, variables = weights_of(place), names_of(model.learner), model.learner.variables
    if source.digest != network.init_digest:
        raise RunError(
            f"network.init: the weights of {place} have the digest {source.digest}, and this run starts from "
            f"{network.init_digest}: restore them, or give a run from the other weights a name of its own"
        )
    numbers = source.numbers
    if not numbers:  # of an older version, which names no weights
        if [each.shape for each in source.arrays] != [tuple(each.shape) for each in variables]:
            raise RunError(f"network.init: {place} is of an older version, and fits a learner of its own kind only")
        numbers = own
    found = {name: source.arrays[number] for name, number in numbers.items()}
    fitting = [name for name in own if name in found and found[name].shape == tuple(variables[own[name]].shape)]
    _refuse_another_body(place, model.learner.network, found, fitting)
    for name in fitting:
        variable = variables[own[name]]
        variable.assign(found[name].astype(variable.dtype.as_numpy_dtype))
    rest = {
        "starting afresh": list(dict.fromkeys(name.rpartition("/")[0] or name for name in own if name not in fitting)),
        "not used": [name for name in found if name not in own],
    }
    told = [f"; {words}: {first_of(names, 4)}" for words, names in rest.items() if names]
    return f"starts from the weights of {place} (digest {source.digest}){''.join(told)}"


def _refuse_another_body(
    place: Path, network: Network, found: Mapping[str, np.ndarray], fitting: Collection[str]
) -> None:
    """Raise RunError if the source lacks a parameter of the body, or has it in another shape."""
    wrong = []
    for name, variable in network.parameters.items():
        if name not in network.head and name not in fitting:
            there = f"is {list(found[name].shape)} there" if name in found else "is missing there"
            wrong.append(f"{name} {there} and {list(variable.shape)} here")
    if wrong:
        raise RunError(
            f"network.init: the body of {place} does not match: {'; '.join(wrong[:3])}"
            f"{f'; and {len(wrong) - 3} more' if len(wrong) > 3 else ''}"
        )

"""Check what is asked of an export, before TensorFlow is imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, NamedTuple

from ..errors import RunError
from ..prediction.files import SupportFiles, find_support
from ..prediction.request import Protocol, refuse_other_way, trained_classifier
from ..runs.directory import RunDirectory
from ..runs.run import readable_spec
from ..runs.trained import Retest, refuse_no_validation, retest

Kind = Literal["classifier", "regression", "policy"]


class Request(NamedTuple):
    """Hold a trained run to export, and where to."""

    out: Path
    support: SupportFiles | None
    invert: bool  # the images have light and dark exchanged
    kind: Kind
    trained: Retest  # with the experiment under the protocol
    calibrated: bool = False  # logits are divided by the temperature that is fitted on the run's validation tasks


def request(
    run: Path,
    out: Path,
    support: Path | None = None,
    protocol: Protocol = "inductive",
    invert: bool = False,
    calibrated: bool = False,
) -> Request:
    """Return what is to be exported.

    Args:
        run: the folder of the run.
        out: the folder to write, which must not exist.
        support: a folder with a folder for each class, or None.
        protocol: what batch norm may see of the queries.
        invert: whether light and dark are exchanged in all images that the model is given, the support's included.
        calibrated: whether probabilities are those of logits divided by the run's temperature.

    Raises:
        RunError: the run has no model to export, is not trained to its end, or has no validation tasks for a
            temperature; or `out` exists.
        SpecError: the protocol does not fit the run.
        DataError: the support set cannot be read, or holds no images.
    """
    if os.path.lexists(out):
        raise RunError(f"{out} exists already: choose another folder, or remove it")
    spec = readable_spec(RunDirectory(run))
    if spec and not spec.kind.is_trained:
        raise RunError(
            f"{run}: {spec.algorithm.name} is a rule without weights, which needs the model of its environment at "
            "every step: there is nothing to export"
        )
    kind: Kind = "classifier"
    if spec and (spec.kind.plays_trials or spec.dataset.regression):
        kind = "policy" if spec.kind.plays_trials else "regression"
    given = {"--support": support, "--invert": invert, "--calibrated": calibrated}
    if kind != "classifier" and (option := next((name for name, value in given.items() if value), None)):
        raise RunError(f"{run} classifies no images: leave out {option}")
    if kind == "policy":
        trained = retest(run, "test", {})
        if trained.spec.algorithm.name != "rl2":
            raise RunError(
                f"{run}: the policy of {trained.spec.algorithm.name} is not known: only that of rl2 is exported"
            )
    elif kind == "regression":
        trained = retest(run, "test", {"protocol": protocol})
    else:
        trained = trained_classifier(run, protocol)
        if calibrated:
            refuse_no_validation(run, trained.spec)
    files = find_support(support) if support else None
    if files:
        refuse_other_way(trained.experiment, files.classes, str(support))
    return Request(out, files, invert, kind, trained, calibrated)

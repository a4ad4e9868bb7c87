"""Check what is asked of a trained classifier, before TensorFlow is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..config.experiment import Experiment
from ..errors import RunError
from ..runs.directory import RunDirectory
from ..runs.run import readable_spec
from ..runs.trained import Retest, refuse_no_classifier, refuse_no_validation, retest
from .files import GivenImages, SupportFiles, find_images, find_support

MOST_TOGETHER = 1000  # images of a transductive prediction, which pass the network in one batch
Protocol = Literal["inductive", "transductive"]


def trained_classifier(run: Path, protocol: Protocol = "inductive") -> Retest:
    """Return the trained run in the folder `run`, with its experiment under the protocol.

    Raises:
        RunError: the run is not trained to its end, as `metarun evaluate` says it, or is no classifier of images.
        SpecError: the protocol does not fit the run.
    """
    trained = retest(run, "test", {"protocol": protocol} if _has_protocol(run) else {})
    refuse_no_classifier(run, trained.spec)
    return trained


def _has_protocol(run: Path) -> bool:
    """Return whether the run is one of few-shot learning; True if that cannot be told, so that `retest` says why."""
    spec = readable_spec(RunDirectory(run))
    return spec is None or spec.kind.is_trained and not spec.kind.plays_trials


def refuse_other_way(experiment: Experiment, classes: Sequence[str], where: str) -> None:
    """Raise RunError if a learner cannot tell so many classes apart.

    Args:
        experiment: the experiment of the run.
        classes: the names of the classes.
        where: what has these classes, for the message.
    """
    own = experiment.only_way
    if len(classes) < 2:
        raise RunError(f"{where} has {len(classes) or 'no'} class: at least 2 are needed, one folder for each")
    if own is not None and len(classes) != own:
        raise RunError(
            f"{where} has {len(classes)} classes, and {experiment.algorithm.name} was trained for exactly {own}: its "
            f"last layer has {own} outputs (protonet and matchingnet take any number of classes)"
        )


@dataclass(frozen=True)
class Request:
    """Hold images to classify, and how."""

    trained: Retest  # with the experiment under the protocol
    support: SupportFiles
    images: GivenImages
    protocol: Protocol = "inductive"
    form: str = "csv"
    invert: bool = False  # exchange light and dark of all images
    calibrated: bool = False  # divide logits by the temperature that is fitted on the run's validation tasks
    unknown: float | None = None  # share of the left-out support images that would be rejected
    leave_one_out: int = 100  # most images that are left out
    out: Path | None = None
    preview: Path | None = None

    @classmethod
    def of(cls, run: Path, support: Path, images: Sequence[Path], **options: Any) -> Request:
        """Return a request that is checked as far as is possible without TensorFlow and without reading images.

        Args:
            run: the folder of the trained run.
            support: the folder of the support set, with a folder for each class.
            images: files to classify, and folders of such files.
            options: the other attributes.

        Raises:
            RunError, SpecError: as `trained_classifier`; the learner tells another number of classes apart; a file
                that would be written is one that is read; `calibrated`, and there are no validation tasks.
            DataError: files or folders are missing, or hold no images.
        """
        protocol = options.get("protocol", "inductive")
        trained = trained_classifier(run, protocol)
        if options.get("calibrated"):
            refuse_no_validation(run, trained.spec)
        files = find_support(support)
        refuse_other_way(trained.experiment, files.classes, str(support))
        request = cls(trained, files, find_images(images), **options)
        if protocol == "transductive" and len(request.images.paths) > MOST_TOGETHER:
            raise RunError(
                f"{len(request.images.paths)} images are too many for --protocol transductive, which normalises all of "
                f"them together: at most {MOST_TOGETHER}"
            )
        request._refuse_overwriting()
        return request

    def _refuse_overwriting(self) -> None:
        """Raise RunError if a file that is written is read, too, or belongs to the run."""
        read = {path.resolve() for path in (*self.support.paths, *self.images.paths)}
        places = [(option, path) for option, path in (("--out", self.out), ("--preview", self.preview)) if path]
        for option, path in places:
            place = path.resolve()
            if place in read:
                raise RunError(f"{option} {path} is one of the images: choose another file")
            if place.is_relative_to(self.trained.directory.path.resolve()) and place.exists():
                raise RunError(f"{option} {path} is a file of the run: choose another file")
        if self.out and self.preview and self.out.resolve() == self.preview.resolve():
            raise RunError(f"--out and --preview are the same file, {self.out}: choose two")

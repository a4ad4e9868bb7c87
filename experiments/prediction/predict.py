"""Predict the classes of images with a trained run and a support set, and say first how far that can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import numpy as np

from ...datasets.errors import DataError, counted
from ...datasets.images.duplicates import digest_of
from ..errors import warn
from ..evaluation.inputs import Inputs, brightness
from ..evaluation.judges import temperature_in_words
from ..system.progress import Progress
from .classifier import Answers, Classifier
from .files import Read, SupportImages, equal_supports, in_chunks, read_support, shown_pairs
from .leave_one_out import LeftOut, leave_one_out, threshold, told
from .lines import FORMATS, predictions_of
from .model import TrainedModel, trained_learner
from .preview import Sheet
from .request import Request

AT_ONCE = 64  # images in memory; no result depends on it
FAR = 0.15  # difference of brightness, of 1, that is told; or three deviations of the training images, if more


class Predicted:
    """Collect facts of the images while they are predicted, for the words after them."""

    def __init__(self, support: SupportImages, invert: bool):
        self.support, self.invert = support, invert
        self.problems: list[str] = []
        self.count = self.frames = self.unknown = self.lost = 0
        self.brightness = 0.0
        self.pairs: list[tuple[str, str]] = []
        self._rows = {digest: row for row, digest in enumerate(support.digests)}

    def see(self, read: list[Read]) -> None:
        """Record what is told of images, and the problems of those that cannot be read."""
        for path, image, problem in read:
            if image is None:
                self.problems.append(problem)
                continue
            self.count += 1
            self.frames += image.frames
            self.brightness += float(brightness(image.pixels[None])[0])
            if (row := self._rows.get(digest_of(image.pixels))) is not None:
                self.pairs.append((str(path), self.support.files.shown(row)))

    def warnings(self, inputs: Inputs) -> Iterator[str]:
        """Yield what makes the predictions doubtful."""
        if self.pairs:
            one = len(self.pairs) == 1
            yield (
                f"{len(self.pairs)} of the images {'is a picture' if one else 'are pictures'} of the support set, by "
                f"{'its' if one else 'their'} pixels: {shown_pairs(self.pairs)}"
            )
        if self.count:
            yield from brightness_warning("the images", self.brightness / self.count, inputs, self.invert)
        if self.frames:
            yield f"of {counted(self.frames, 'file')} with several frames the first one was read"
        if self.lost:
            yield f"{counted(self.lost, 'image has', 'images have')} an output that is not finite, and no label"


def brightness_warning(what: str, given: float, inputs: Inputs, inverted: bool) -> Iterator[str]:
    """Yield a sentence if images are much brighter or darker than those of the training.

    Args:
        what: the images, for the sentence.
        given: their mean brightness, from 0 to 1.
        inputs: the images of the training.
        inverted: whether light and dark of the given images were exchanged.
    """
    own = inputs.brightness
    if abs(given - own) <= max(FAR, 3 * inputs.brightness_deviation):
        return
    exchanged = abs(1 - given - own) < abs(given - own)
    way_out = "without --invert" if inverted else "with --invert"
    why = f"light and dark may be exchanged: try it {way_out}" if exchanged else "the network has seen no such images"
    yield f"the mean brightness of {what} is {given:.2f}, that of the training's images {own:.2f}: {why}"


def support_warnings(support: SupportImages, inputs: Inputs, inverted: bool) -> Iterator[str]:
    """Yield what makes a support set doubtful; `inputs` and `inverted` are those of `brightness_warning`."""
    yield from (f"{support.files.folder}: left out: {each}" for each in support.files.left_out)
    if line := equal_supports(support):
        yield line
    yield from brightness_warning("the support images", float(brightness(support.images).mean()), inputs, inverted)


class Unreadable(DataError):
    """Report images that cannot be read; the others are predicted."""

    def __init__(self, problems: Sequence[str], number: int):
        """List all problems of `number` images."""
        head = f"{len(problems)} of {counted(number, 'image')} cannot be read; the others are predicted:"
        super().__init__("\n".join([head, *(f"  {each}" for each in problems)]))


def predict(
    request: Request, write: Callable[[str], object], say: Callable[[str], object], bar: bool = True
) -> Unreadable | None:
    """Classify the images of a request, and write a line for each. Return an error that tells those it cannot read.

    Args:
        request: what is asked, checked by `Request.of`.
        write: takes the predictions, part by part, as text.
        say: takes lines for the user.
        bar: whether to show progress.

    Raises:
        RunError: the run or its learner cannot be used.
        DataError: support images cannot be read, or none can be left out for `unknown`.
        Interrupted: a signal came.
    """
    model = trained_learner(request.trained, request.calibrated)
    if head := model.experiment.head_values:
        say(f"classified by the head of the run's test: {head}")
    if request.calibrated:
        say(temperature_in_words(model.temperature))
    support = read_support(request.support, model.inputs.preprocessing, request.invert)
    least = _look_at(request, model, support, say)
    classifier = Classifier(model, support)
    seen, classes = Predicted(support, request.invert), request.support.classes
    sheet = Sheet(model, support) if request.preview else None
    lines = FORMATS[request.form](classes, classifier.by_image is not None)
    supports = [str(path) for path in request.support.paths]
    write(lines.head())
    paths = request.images.paths
    with Progress("images", len(paths), unit="image") if bar else nullcontext() as progress:
        for read, answers in _answered(request, classifier):
            seen.see(read)
            good = [each for each in read if each.image]
            if answers is not None:
                found = predictions_of([str(each.path) for each in good], answers, classes, supports, least)
                seen.lost += int((answers.labels < 0).sum())
                seen.unknown += sum(not each.label for each in found)
                write(lines.lines(found))
                if sheet:
                    sheet.add([each.image.pixels for each in good if each.image], found)
            if progress:
                progress.advance(len(read))
    write(lines.end())
    for line in seen.warnings(model.inputs):
        warn(line)
    if request.unknown is not None:
        say(f"unknown: {seen.unknown} of {counted(seen.count, 'image')}")
    if sheet and request.preview:
        for line in sheet.save(request.preview):
            say(line)
    return Unreadable(seen.problems, len(paths)) if seen.problems else None


def _answered(request: Request, classifier: Classifier) -> Iterator[tuple[list[Read], Answers | None]]:
    """Yield images and the answers for those that can be read: parts of the images, or all if they are transductive."""
    paths, preprocessing = request.images.paths, classifier.model.inputs.preprocessing
    chunks = in_chunks(paths, preprocessing, request.invert, AT_ONCE)
    if request.protocol == "transductive":
        chunks = iter([[each for chunk in chunks for each in chunk]])
    for read in chunks:
        images = [each.image.pixels for each in read if each.image]
        yield read, classifier.classify(np.stack(images)) if images else None


def _look_at(request: Request, model: TrainedModel, support: SupportImages, say: Callable[[str], object]) -> float:
    """Report what is to be known of the support set, and return the score below which an image gets no label."""
    say(request.support.name)
    for line in [*support_warnings(support, model.inputs, request.invert), *request.images.left_out]:
        warn(line)
    if request.protocol == "transductive":
        say(f"transductive: all {len(request.images.paths)} images are normalised together; each depends on the others")
    found = leave_one_out(model, support, request.leave_one_out)
    for line in told(request.support, found):
        say(line)
    return -math.inf if request.unknown is None else _threshold(request.unknown, found, say)


def _threshold(share: float, found: LeftOut, say: Callable[[str], object]) -> float:
    if not len(found.rows):
        raise DataError(f"--unknown needs images that can be left out: {found.why or 'none is, by --leave-one-out 0'}")
    least = threshold(found.scores, share)
    below = int((found.scores < least).sum())
    say(f"unknown: a score below {least:.6g}, which {below} of {len(found.rows)} images that were left out have")
    return least

"""Lines that are written and said of predictions, without a network."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from metarun.datasets.images.preprocessing import Preprocessing
from metarun.experiments.evaluation.inputs import Inputs
from metarun.experiments.prediction.classifier import Answers
from metarun.experiments.prediction.files import SupportFiles, SupportImages, equal_supports
from metarun.experiments.prediction.leave_one_out import LeftOut, chosen, threshold, told
from metarun.experiments.prediction.lines import CSV, JSON, predictions_of
from metarun.experiments.prediction.predict import brightness_warning

LETTERS = Inputs(
    preprocessing=Preprocessing(height=28, width=28, channels=1), brightness=0.1, brightness_deviation=0.04
)
PHOTOGRAPHS = LETTERS.model_copy(update={"brightness": 0.45, "brightness_deviation": 0.15})


def support(*counts, digests=None):
    classes = tuple(f"c{number}" for number in range(len(counts)))
    paths = tuple(
        Path(f"/s/{name}/{row}.png") for name, count in zip(classes, counts, strict=True) for row in range(count)
    )
    files = SupportFiles(Path("/s"), classes, counts, paths, [])
    digests = digests or [bytes([(255 - row) % 256, row // 256]) for row in range(len(paths))]
    return SupportImages(files, np.zeros((len(paths), 1, 1, 1), np.uint8), digests)


class TestLines:
    answers = Answers(
        np.array([[2.0, 1.0], [0.0, 5.0], [math.nan, 0.0]]),
        np.array([[0.75, 0.25], [0.1, 0.9], [math.nan, math.nan]], np.float32),
        np.array([2.0, 5.0, math.nan], np.float32),
        np.array([1, 0, 0]),
    )
    names = ('a,"b"', "label")
    found = predictions_of(["x\n.png", "y.png", "z.png"], answers, names, ["s/0.png", "s/1.png"], 3.0)

    def test_a_low_score_or_a_number_that_is_not_finite_has_no_label(self):
        """Reject class 0 for outputs that are not finite, whose largest it would be."""
        assert [each.label for each in self.found] == ["", "label", ""]

    def test_csv_comes_back(self):
        lines = CSV(self.names, True)
        rows = list(csv.DictReader(io.StringIO(lines.head() + lines.lines(self.found) + lines.end())))
        assert [row["image"] for row in rows] == ["x\n.png", "y.png", "z.png"]
        assert list(rows[0]) == ["image", "label", 'p(a,"b")', "p(label)", "score", "nearest"]
        assert np.float32(rows[1]["p(label)"]) == np.float32(0.9) and rows[0]["nearest"] == "s/1.png"

    def test_json_is_a_list_however_it_is_divided(self):
        lines = JSON(self.names, True)
        text = lines.head() + lines.lines(self.found[:1]) + lines.lines([]) + lines.lines(self.found[1:]) + lines.end()
        first, second, third = json.loads(text)
        assert first["label"] is None and second["label"] == "label"
        assert np.float32(second["probabilities"]["label"]) == np.float32(0.9)
        assert third["score"] is None and third["probabilities"][self.names[0]] is None
        assert json.loads(JSON(self.names, False).head() + JSON(self.names, False).end()) == []


class TestThreshold:
    @pytest.mark.parametrize(("share", "below"), [(0, 0), (0.05, 0), (0.1, 1), (0.3, 3), (0.99, 9)])
    def test_that_share_is_below_it(self, share, below):
        """Reject a quantile between two scores, and 0.3 * 10 = 2.999... rounded down."""
        scores = np.random.default_rng(0).permutation(10).astype(float)
        assert (scores < threshold(scores, share)).sum() == below

    def test_scores_that_are_not_finite_are_the_lowest(self):
        assert threshold(np.array([math.nan, 1.0, 2.0]), 1 / 3) == 1.0


class TestLeaveOneOut:
    def test_as_many_of_each_class_as_possible_are_left_out(self):
        """Reject the first images, which are of the first class, and images alone in their class."""
        assert chosen(support(5, 1, 5), 4).tolist() == [3, 4, 9, 10]  # the last ones have the lowest digests
        assert chosen(support(2, 1, 2), 100).tolist() == [0, 1, 3, 4]
        assert chosen(support(2, 2), 0).tolist() == []

    def test_names_of_files_do_not_decide(self):
        one, other = support(3, 3), support(3, 3, digests=[bytes([row]) for row in range(6)])
        assert chosen(one, 2).tolist() == [2, 5] and chosen(other, 2).tolist() == [0, 3]

    def test_accuracy_interval_and_confusions_are_told(self):
        labels = np.repeat([0, 1], 20)
        answers = labels.copy()
        answers[:3], answers[20] = 1, -1
        lines = told(support(20, 20, 1).files, LeftOut(np.arange(40), labels, answers, np.zeros(40), 40))
        assert lines == [
            "leave-one-out: 36 of 40 right, 90.0 % ± 9.7",
            "confused: c0 taken for c1 3; 1 with an output that is not finite",
            "1 class has one image, which is not left out: c2",
        ]

    def test_few_equal_answers_have_no_interval(self):
        """Reject 100 % ± 0."""
        few = LeftOut(np.arange(4), np.zeros(4), np.zeros(4), np.zeros(4), 9)
        (line,) = told(support(4, 5).files, few)
        assert line == (
            "leave-one-out: 4 of 4 right, 100.0 % (too few images for an interval); "
            "of 9 images these were left out, as many of each class as possible"
        )


class TestWarnings:
    @pytest.mark.parametrize(
        ("given", "inputs", "inverted", "words"),
        [
            (0.88, LETTERS, False, "light and dark may be exchanged: try it with --invert"),
            (0.88, LETTERS, True, "try it without --invert"),
            (0.35, LETTERS, False, "0.35, that of the training's images 0.10: the network has seen no such"),
            (0.2, LETTERS, False, None),
            (0.75, PHOTOGRAPHS, False, None),
            (0.95, PHOTOGRAPHS, False, "exchanged"),
        ],
    )
    def test_brightness_far_from_that_of_the_training(self, given, inputs, inverted, words):
        found = list(brightness_warning("the images", given, inputs, inverted))
        assert found == [] if words is None else words in found[0]

    def test_of_many_classes_the_smallest_are_named(self):
        assert support(1, 2).files.name == "support /s: 2 classes, 3 images: c0 1, c1 2"
        name = support(*range(30, 5, -1)).files.name
        assert ": c24 6, c23 7, " in name and name.endswith("c5 25, ..., up to 30") and "c4 " not in name

    def test_equal_support_images(self):
        assert equal_supports(support(2, 2)) == ""
        within = equal_supports(support(2, 2, digests=[b"a", b"a", b"b", b"c"]))
        assert within.startswith("1 support image is the same picture as another one, by its pixels: c0/0.png = c0/1")
        assert "contradict" not in within
        assert "contradict" in equal_supports(support(2, 2, digests=[b"a", b"b", b"a", b"b"]))

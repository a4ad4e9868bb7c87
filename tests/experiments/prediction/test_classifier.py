"""Predicting the images of a test task is that test, and no image depends on the others."""

import csv
import shutil

import numpy as np
import pytest
import tensorflow as tf
from small_runs import MORE, write_image

from metarun.datasets.errors import DataError
from metarun.experiments.errors import RunError
from metarun.experiments.evaluation.inputs import stored_inputs
from metarun.experiments.prediction import predict as predicting
from metarun.experiments.prediction.classifier import Classifier
from metarun.experiments.prediction.files import find_images, find_support, read_images, read_support
from metarun.experiments.prediction.leave_one_out import _answering, leave_one_out
from metarun.experiments.prediction.model import trained_learner, training_source
from metarun.experiments.prediction.predict import predict
from metarun.experiments.prediction.request import Request, trained_classifier

OWN = {name: protocol for name, (_, protocol) in MORE.items()}


def read(model, folder):
    preprocessing = model.inputs.preprocessing
    support = read_support(find_support(folder / "support"), preprocessing, False)
    queries = read_images(find_images([folder / "query"]).paths, preprocessing, False)
    return support, np.stack([each.image.pixels for each in queries])


LEARNERS = [pytest.param(name, marks=[pytest.mark.slow] * (name != "protonet")) for name in MORE]


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("name", LEARNERS)
def test_the_images_of_a_test_task_give_the_line_of_that_task(runs, models, lay_out, name):
    """Reject another order of the labels, other weights, the network before adaptation, and inverted images."""
    directory, number = runs(name), 2
    laid = lay_out(directory, number)
    model = models(name, OWN[name])
    support, queries = read(model, laid.folder)
    answers = Classifier(model, support, laid.task.drawn[0].numpy()).classify(queries)
    with open(directory.episodes, newline="") as file:
        line = list(csv.DictReader(file))[number]
    labels = laid.task.query_y[0].numpy()
    assert float((answers.labels == labels).mean()) == pytest.approx(float(line["accuracy"]), abs=1e-6)
    loss = -np.log(answers.probabilities[np.arange(len(labels)), labels]).mean()
    assert loss == pytest.approx(float(line["negative_log_likelihood"]), abs=1e-5)
    inverted = support._replace(images=255 - support.images)
    other = Classifier(model, inverted, laid.task.drawn[0].numpy()).classify(255 - queries)
    assert np.abs(other.probabilities - answers.probabilities).max() > 1e-4


def lines(run, support, images, **options):
    written, said = [], []
    error = predict(Request.of(run, support, images, leave_one_out=0, **options), written.append, said.append, False)
    return "".join(written).splitlines(), said, error


@pytest.mark.parametrize("name", ["protonet", pytest.param("maml", marks=pytest.mark.slow)])
def test_no_line_depends_on_the_other_images(runs, models, lay_out, name, monkeypatch):
    """Reject batches of images: their kernels round in another way, and batch norm would see all of them."""
    monkeypatch.setattr(predicting, "AT_ONCE", 4)
    monkeypatch.setattr(predicting, "trained_learner", lambda asked, _: models(name, asked.experiment.protocol))
    run, folder = runs(name).path, lay_out(runs(name), 0).folder
    images = sorted((folder / "query").rglob("*.png"))
    head, *together = lines(run, folder / "support", images)[0]
    backwards = lines(run, folder / "support", images[::-1])[0][1:]
    assert backwards == together[::-1] and len(set(together)) == len(images) == 9
    assert lines(run, folder / "support", [images[5]])[0] == [head, together[5]]
    if name == "maml":
        transductive = lines(run, folder / "support", images, protocol="transductive")[0][1:]
        assert transductive != together


@pytest.mark.usefixtures("eagerly")
def test_a_temperature_divides_logits_and_changes_no_label_and_no_score(runs, models, lay_out):
    """Reject logits that are multiplied, probabilities that are divided, and scores that lose their threshold."""
    model = models("protonet")
    support, queries = read(model, lay_out(runs("protonet"), 1).folder)
    plain = Classifier(model, support).classify(queries)
    warm = Classifier(model._replace(temperature=3.0), support).classify(queries)
    powers = np.exp(plain.logits / 3)
    np.testing.assert_allclose(warm.probabilities, powers / powers.sum(axis=1, keepdims=True), rtol=1e-5)
    assert np.abs(warm.probabilities - plain.probabilities).max() > 0.01
    for name in ("labels", "scores", "logits"):
        np.testing.assert_array_equal(getattr(warm, name), getattr(plain, name))


@pytest.mark.usefixtures("eagerly")
class TestNearest:
    def test_it_is_the_support_image_with_the_nearest_embedding(self, runs, models, lay_out):
        model = models("protonet")
        support, queries = read(model, lay_out(runs("protonet"), 1).folder)
        found = Classifier(model, support).classify(queries).nearest
        network = model.learner.network
        supports, embedded = (
            network(network.parameters, model.as_input(each)[None], running=True)[0].numpy()
            for each in (support.images, queries)
        )
        distances = ((embedded[:, None] - supports[None]) ** 2).sum(axis=2)
        assert found.tolist() == distances.argmin(axis=1).tolist()
        own = Classifier(model, support).classify(support.images)
        assert own.nearest.tolist() == list(range(len(support.images)))

    def test_gradient_based_learners_have_none(self, runs, models, lay_out):
        model = models("maml")
        support, queries = read(model, lay_out(runs("maml"), 1).folder)
        assert Classifier(model, support).classify(queries[:1]).nearest is None


@pytest.mark.usefixtures("eagerly")
class TestCounts:
    def test_classes_of_other_sizes_are_taken(self, runs, models, lay_out):
        """Reject a mean over the images: a class does not win because it has copies of its images."""
        folder = lay_out(runs("protonet"), 0).folder
        model = models("protonet")
        support, queries = read(model, folder)
        for number in range(3):
            own = folder / "support" / "class 1"
            for path in sorted(own.glob("??.png")):
                shutil.copy(path, own / f"{path.stem}-{number}.png")
        more, _ = read(model, folder)
        assert more.files.counts == (2, 8, 2)
        expected = Classifier(model, support).classify(queries).probabilities
        np.testing.assert_allclose(Classifier(model, more).classify(queries).probabilities, expected, atol=1e-5)

    def test_a_comparison_of_another_package_takes_equal_ones_alone(self, runs, models, lay_out, monkeypatch):
        from metarun.algorithms.embedding import EmbeddingLearner
        from metarun.algorithms.protonet import PrototypicalNetwork

        folder = lay_out(runs("protonet"), 0).folder
        model = models("protonet")
        monkeypatch.setattr(PrototypicalNetwork, "summary", EmbeddingLearner.summary)
        next((folder / "support" / "class 1").glob("*.png")).unlink()
        support, _ = read(model, folder)
        with pytest.raises(RunError, match=r"protonet takes equally many images of each class: .*class 1 1, class 2 2"):
            Classifier(model, support)
        assert "equally many" in leave_one_out(model, support).why


@pytest.mark.usefixtures("eagerly")
class TestLeaveOneOut:
    @pytest.mark.parametrize("name", LEARNERS)
    def test_an_image_is_classified_by_the_others(self, runs, models, lay_out, name):
        """Reject an image that stays in its class, and embeddings of another image."""
        folder = lay_out(runs(name), 0).folder
        model = models(name)
        support, _ = read(model, folder)
        drawn = np.arange(5)
        found = leave_one_out(model, support, drawn=drawn)
        assert found.rows.tolist() == list(range(6)) and found.possible == 6
        left = folder / "support" / "class 1"
        (path, *_) = sorted(left.glob("*.png"))
        path.unlink()
        rest, _ = read(model, folder)
        alone = Classifier(model, rest, drawn).classify(support.images[2:3])
        assert found.answers[2] == alone.labels[0] and found.scores[2] == pytest.approx(alone.scores[0], abs=1e-5)
        kept = Classifier(model, support, drawn).classify(support.images[2:3])
        assert abs(kept.scores[0] - alone.scores[0]) > 1e-4

    def test_a_class_of_one_image_is_not_left_out(self, runs, models, lay_out):
        folder = lay_out(runs("protonet"), 0).folder
        next((folder / "support" / "class 1").glob("*.png")).unlink()
        model = models("protonet")
        support, _ = read(model, folder)
        found = leave_one_out(model, support)
        assert found.rows.tolist() == [0, 1, 3, 4] and 1 not in found.labels

    def test_transductive_learners_see_the_image_with_the_rest(self, runs, models, lay_out):
        model = models("protonet", "transductive")
        support, _ = read(model, lay_out(runs("protonet"), 0).folder)
        from metarun.experiments.prediction.classifier import Task

        answer = _answering(model, Task(model, support))(tf.constant(0))
        inductive = leave_one_out(models("protonet"), support, 1)
        assert abs(float(answer[1]) - inductive.scores[0]) > 1e-5


class TestTrainedLearner:
    def test_it_needs_no_data_of_the_training(self, runs, tmp_path, monkeypatch):
        monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "empty"))
        run = tmp_path / "maml" / "seed-0"
        shutil.copytree(runs("maml").path, run)
        spec = run / "spec.yaml"
        spec.write_text(spec.read_text().replace("/images", "/nowhere"))
        model = trained_learner(trained_classifier(run))
        expected = trained_learner(trained_classifier(runs("maml").path))
        for name, value in model.learner.parameters.items():
            np.testing.assert_array_equal(value, expected.learner.parameters[name])
        assert model.way == 3 and model.learner.problem.protocol == "inductive"
        with pytest.raises(DataError):
            training_source(model)

    def test_a_run_of_an_older_version_asks_its_data(self, runs, tmp_path):
        run = tmp_path / "protonet" / "seed-0"
        shutil.copytree(runs("protonet").path, run)
        stored = stored_inputs(runs("protonet"))
        (run / "inputs.json").unlink()
        model = trained_learner(trained_classifier(run))
        assert model.inputs == stored and (run / "inputs.json").is_file() and model.way is None
        assert training_source(model).content_digest

    def test_a_learner_without_fit_is_one_line(self, runs, monkeypatch):
        from metarun.algorithms.maml import MAML

        monkeypatch.delattr(MAML, "fit")
        with pytest.raises(RunError, match="the learner of maml has no fit, see docs/extending.md"):
            trained_learner(trained_classifier(runs("maml").path))


@pytest.mark.usefixtures("eagerly")
class TestWords:
    def test_what_is_seen_is_told(self, runs, models, lay_out, tmp_path, capsys, monkeypatch):
        """Tell bad files all at once, equal pictures, exchanged light and dark, and draw what the network sees."""
        folder = lay_out(runs("protonet"), 0).folder
        support, (first, *_) = folder / "support", sorted((folder / "query").rglob("*.png"))
        (folder / "query" / "broken.png").write_bytes(b"nothing")
        (folder / "query" / "cut.png").write_bytes(first.read_bytes()[:60])
        (folder / "query" / "notes.txt").write_text("hello")
        known = next((support / "class 2").glob("*.png"))
        shutil.copy(known, folder / "query" / "known.png")
        shutil.copy(known, support / "class 0" / "again.png")
        white = folder / "query" / "white.png"
        write_image(white, np.full((30, 20), 255))
        monkeypatch.setattr(
            predicting, "trained_learner", lambda asked, _: models("protonet", asked.experiment.protocol)
        )
        options = {"unknown": 0.5, "preview": tmp_path / "seen.png"}
        written, said = [], []
        request = Request.of(runs("protonet").path, support, [folder / "query", white], **options)
        error = predict(request, written.append, said.append, False)
        lines, told = "".join(written).splitlines(), capsys.readouterr().err
        assert len(lines) == 1 + 9 + 2 and error.code == 1
        assert str(error).startswith("2 of 13 images cannot be read; the others are predicted:\n  ")
        assert "broken.png is not a readable image" in str(error) and "cut.png is not a readable image" in str(error)
        assert "1 of the images is a picture of the support set" in told and "known.png = class 2/" in told
        assert "1 support image is the same picture as another one" in told and "contradict" in told
        assert "1 file of kinds that are not read: 1 .txt" in told
        assert said[0].endswith("3 classes, 7 images: class 0 3, class 1 2, class 2 2")
        assert said[1].startswith("leave-one-out: ") and " of 7 right" in said[1]
        assert any("which 3 of 7 images that were left out have" in each for each in said)
        assert options["preview"].read_bytes().startswith(b"\x89PNG") and f"preview: {options['preview']}" in said

    def test_a_damaged_support_image_ends_it(self, runs, models, lay_out, monkeypatch):
        monkeypatch.setattr(
            predicting, "trained_learner", lambda asked, _: models("protonet", asked.experiment.protocol)
        )
        folder = lay_out(runs("protonet"), 0).folder
        (folder / "support" / "class 0" / "bad.png").write_bytes(b"nothing")
        with pytest.raises(DataError, match=r"class 0/bad.png is not a readable image"):
            lines(runs("protonet").path, folder / "support", [folder / "query"])

    def test_a_threshold_needs_images_that_are_left_out(self, runs, models, lay_out, monkeypatch):
        monkeypatch.setattr(
            predicting, "trained_learner", lambda asked, _: models("protonet", asked.experiment.protocol)
        )
        folder = lay_out(runs("protonet"), 0).folder
        with pytest.raises(DataError, match="--unknown needs images that can be left out: none is, by --leave"):
            lines(runs("protonet").path, folder / "support", [folder / "query"], unknown=0.1)

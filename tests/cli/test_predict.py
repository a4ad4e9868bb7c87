"""`metarun predict` from the command line: files, streams and exit codes."""

import pytest
from click.testing import CliRunner
from pictures import png

from metarun.cli.main import metarun
from metarun.datasets.errors import DataError
from metarun.experiments.prediction import predict as prediction
from metarun.experiments.prediction import request


@pytest.fixture
def feigned(tmp_path, monkeypatch):
    """Replace the checks and the network: two parts are written, then the images that cannot be read are told."""
    (tmp_path / "new.png").write_bytes(png())

    def predict(asked, write, say, bar):
        say("support: 2 classes")
        write("image,label\n")
        write("\udcff.png,ü\n")  # a name that is not UTF-8
        return None if asked.good else prediction.Unreadable(["x.png is broken"], 2)

    def give(good):
        monkeypatch.setattr(prediction, "predict", predict)
        monkeypatch.setattr(request.Request, "of", lambda *_, out, **__: type("R", (), {"out": out, "good": good}))
        return ["predict", str(tmp_path), str(tmp_path / "new.png"), "--support", str(tmp_path)]

    return give


def test_predictions_go_to_the_file_and_words_to_standard_error(feigned, tmp_path):
    out = tmp_path / "labels.csv"
    done = CliRunner().invoke(metarun, [*feigned(True), "--out", str(out)])
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.splitlines() == ["support: 2 classes", f"predictions: {out}"]
    assert out.read_bytes() == "image,label\n\\udcff.png,ü\n".encode()


def test_predictions_are_kept_when_images_cannot_be_read(feigned, tmp_path):
    """Reject a file that is not written because the command ends with an error."""
    out = tmp_path / "labels.csv"
    done = CliRunner().invoke(metarun, [*feigned(False), "--out", str(out)])
    assert isinstance(done.exception, DataError) and done.exception.code == 1
    assert str(done.exception) == "1 of 2 images cannot be read; the others are predicted:\n  x.png is broken"
    assert out.read_bytes().startswith(b"image,label\n") and not list(tmp_path.glob(".labels*"))


def test_predictions_alone_are_printed(feigned):
    done = CliRunner().invoke(metarun, feigned(True))
    assert done.stdout.startswith("image,label\n") and done.stderr == "support: 2 classes\n"


def test_a_share_of_one_would_reject_everything(feigned):
    done = CliRunner().invoke(metarun, [*feigned(True), "--unknown", "1"])
    assert done.exit_code == 2 and "0<=x<1" in done.stderr

"""Work that takes minutes says so, on a terminal or not."""

import re

import numpy as np
import pytest
from PIL import Image

from metarun.datasets import imagefolder
from metarun.datasets.images import progress
from metarun.datasets.options import ImageFolderOptions


@pytest.mark.parametrize(
    ("total", "words"), [(8, "^images: 4/8 images, .*/s, .* left, soon\n$"), (None, "^images: 4 images, .*/s, soon\n$")]
)
def test_a_line_without_a_terminal(monkeypatch, capsys, total, words):
    """Reject silence where the time left is unknown, and a line for each image."""
    now = iter([0.0, 1.0, 31.0, 31.0, 31.0, 32.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    bar = progress.Bar("images", total)
    bar.advance(3)
    bar.advance(1, "soon")
    bar.advance()
    assert re.match(words, capsys.readouterr().err)


def test_a_folder_that_is_read_for_the_first_time_shows_lines(monkeypatch, capsys, tmp_path):
    """Reject minutes of silence in the log of a job; a second start reads no image and shows none."""
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)
    for number in range(6):
        (tmp_path / "images" / f"class{number}").mkdir(parents=True)
        for shade in range(2):
            image = np.full((8, 8), 100 * shade + number, np.uint8)
            Image.fromarray(image).save(tmp_path / "images" / f"class{number}" / f"{shade}.png")
    options = ImageFolderOptions(path=tmp_path / "images", image_size=8, split=(0.5, 0.0, 0.5))
    imagefolder.build(options)
    assert f"reading {tmp_path / 'images'}: 12/12 images" in capsys.readouterr().err
    imagefolder.build(options)
    assert "reading" not in capsys.readouterr().err

"""Fixtures of the tests of specs."""

import pytest


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "spec.yaml"
        path.write_text(text)
        return path

    return write

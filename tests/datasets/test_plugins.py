"""Loading what other packages offer."""

from importlib import import_module

import pytest

from metarun.datasets.errors import DataError, KnownError

plugins = import_module("metarun.datasets.plugins")  # the package has a function of that name


class Point:
    name, value, dist = "theirs", "their_package:Theirs", None

    def __init__(self, error):
        self.error = error

    def load(self):
        raise self.error


def test_a_request_to_stop_is_not_told_as_a_bad_package(monkeypatch, capsys):
    """Send a signal while a package is imported. Rejected: the package is left out and the command goes on."""
    monkeypatch.setattr(plugins, "entry_points", lambda group: [Point(KnownError("stopped"))])
    with pytest.raises(KnownError, match="stopped"):
        plugins.plugins("metarun.datasets", (), lambda name, loaded: None)
    for error in (DataError("no data"), ValueError("no good")):
        monkeypatch.setattr(plugins, "entry_points", lambda group, error=error: [Point(error)])
        assert plugins.plugins("metarun.datasets", (), lambda name, loaded: None) == {}
        assert f"is left out: {type(error).__name__}: {error}" in capsys.readouterr().err

"""Fixtures of datasets."""

import copies
import pytest


@pytest.fixture
def small_copies(monkeypatch):
    """Make published datasets as small as the copies that tests make of them."""
    copies.shrink(monkeypatch)

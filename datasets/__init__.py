"""Distributions over tasks. `DATASETS` is the only dispatch; modules import TensorFlow only when built."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .options import (
    DatasetOptions,
    GlyphsOptions,
    ImageFolderOptions,
    MiniImagenetOptions,
    OmniglotOptions,
    Options,
    SinusoidOptions,
)

if TYPE_CHECKING:
    from .tasks import TaskSource

DATASETS: dict[str, type[Options]] = {
    "glyphs": GlyphsOptions,
    "omniglot": OmniglotOptions,
    "miniimagenet": MiniImagenetOptions,
    "imagefolder": ImageFolderOptions,
    "sinusoid": SinusoidOptions,
}


def build(options: DatasetOptions, dtype: str = "float32") -> TaskSource:
    """The task distribution of a spec; DataError where data are missing or damaged."""
    return import_module(f".{options.name}", __name__).build(options, dtype)

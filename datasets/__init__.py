"""Distributions over tasks. `DATASETS` is the only dispatch; modules import TensorFlow only when built."""
from __future__ import annotations

from importlib import import_module
from pathlib import Path
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


def build(options: DatasetOptions, *, folder: Path | None = None, dtype: str = "float32") -> TaskSource:
    """The task distribution of a spec; relative paths start at `folder`. DataError where data are missing."""
    if isinstance(options, ImageFolderOptions):
        options = options.model_copy(update={"path": (folder or Path()) / options.path})
    return import_module(f".{options.name}", __name__).build(options, dtype)

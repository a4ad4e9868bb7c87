"""Distributions over tasks. `DATASETS` is the only dispatch; modules import TensorFlow only when they are built."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .options import (
    MODULES,
    BanditsOptions,
    CifarFSOptions,
    CubOptions,
    EmnistOptions,
    FC100Options,
    GlyphsOptions,
    ImageFolderOptions,
    MDPsOptions,
    MiniImagenetOptions,
    OmniglotOptions,
    Options,
    SinusoidOptions,
    TieredImagenetOptions,
)
from .plugins import misnamed, plugins

if TYPE_CHECKING:
    from .tasks import TaskSource
    from .trials import TrialSource

BUILT_IN: dict[str, type[Options]] = {
    "glyphs": GlyphsOptions,
    "omniglot": OmniglotOptions,
    "miniimagenet": MiniImagenetOptions,
    "tieredimagenet": TieredImagenetOptions,
    "cifar-fs": CifarFSOptions,
    "fc100": FC100Options,
    "cub": CubOptions,
    "emnist": EmnistOptions,
    "imagefolder": ImageFolderOptions,
    "sinusoid": SinusoidOptions,
    "bandits": BanditsOptions,
    "mdps": MDPsOptions,
}


def _problem(name: str, loaded: Any) -> str | None:
    """Return why an entry point is not a valid dataset, or None."""
    if not (isinstance(loaded, type) and issubclass(loaded, Options) and callable(getattr(loaded, "build", None))):
        return "it is not a subclass of metarun.datasets.options.Options with a method `build`"
    return misnamed(name, loaded)


DATASETS = BUILT_IN | plugins("metarun.datasets", BUILT_IN, _problem)


def build(options: Any, dtype: str = "float32") -> TaskSource | TrialSource:
    """Build the task distribution of a spec.

    Args:
        options: The section `dataset` of the spec.
        dtype: The dtype of the inputs.

    Raises:
        DataError: Data are missing or damaged.
    """
    if type(options) in BUILT_IN.values():
        return import_module(f".{MODULES.get(options.name, options.name)}", __name__).build(options, dtype)
    return options.build(dtype)


def build_test(options: Any, split: str, dtype: str = "float32", original: bool = False) -> TaskSource:
    """Build the tasks of a further test of a dataset, which are of this one split.

    Args:
        options: The section `dataset` of the spec.
        split: A key of `options.further_tests`.
        dtype: The dtype of the inputs.
        original: Whether images have their original size where it is known, because no network reads them.

    Raises:
        DataError: Data are missing or damaged.
    """
    return import_module(f".{options.name}", __name__).build_test(options, split, dtype, original)

"""The sections of a spec that every experiment has: training, validation, test and published number. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import AfterValidator, Field, model_validator

from ...algorithms.heads.options import HeadOptions
from ...datasets import DATASETS
from ...datasets.options import DatasetOptions, Options

if not TYPE_CHECKING:  # with those of other packages
    DatasetOptions = Annotated[Union[tuple(DATASETS.values())], Field(discriminator="name")]  # noqa: UP007

# keys of a section that a validation takes from the test where it says nothing, and a test from the training
SHAPE = ("way", "shot", "query")
OtherDataset = Annotated[  # of a test; "Dataset | None" with what a folder means there
    DatasetOptions | None, AfterValidator(lambda dataset: dataset and dataset.for_tests())
]


def _or_null(schema: dict[str, Any]) -> None:
    """Change the JSON Schema of a number whose default is not its own: null stands for the default."""
    number = {key: schema.pop(key) for key in ("type", "minimum", "maximum")}
    del schema["default"]
    schema["anyOf"] = [number, {"type": "null"}]


class Train(Options):
    """Set the meta-training: its tasks, and how many steps."""

    way: int = Field(default=5, ge=1, le=1000, description="Classes per task; 1 in regression.")
    shot: int = Field(default=1, ge=1, le=1000, description="Support images per class (regression: points per task).")
    query: int = Field(default=15, ge=1, le=1000, description="Query images per class (regression: points per task).")
    meta_batch: int = Field(
        default=1,
        ge=1,
        le=1_000_000,
        description="Tasks per meta-update; for rl2 the trials per iteration, for classifiers (baseline, simpleshot) "
        "the images of a mini-batch.",
    )
    steps: int = Field(
        ge=0,
        le=1_000_000_000,
        description="Meta-updates; for rl2 iterations, for classifiers mini-batches.",
        examples=[1000],
    )
    epochs: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Of classifiers, in place of steps: passes over all training images, of which the steps are made.",
    )
    log_every: int = Field(default=100, ge=1, description="Steps between two rows of metrics.csv.")
    patience: int | None = Field(
        default=None,
        ge=1,
        description="End the training after so many validations in a row without a better value. Default: never.",
    )

    @model_validator(mode="before")
    @classmethod
    def _counted_later(cls, values: Any) -> Any:
        """Add steps to a section that gives epochs in their place: 0, until the images are counted."""
        if isinstance(values, Mapping) and values.get("epochs") is not None and values.get("steps") is None:
            return {**values, "steps": 0}
        return values


class Validation(Options):
    """Validate during training, always on the same tasks of the validation split."""

    way: int | None = Field(default=None, ge=1, le=1000, description="Classes per task; default: test.way.")
    shot: int | None = Field(default=None, ge=1, le=1000, description="Support images per class; default: test.shot.")
    query: int | None = Field(default=None, ge=1, le=1000, description="Query images per class; default: test.query.")
    episodes: int = Field(default=100, ge=2, le=10_000_000, description="Number of tasks.")
    every: int = Field(default=500, ge=1, description="Steps between two validations; a checkpoint follows each.")

    def filled(self, test: Test) -> Validation:
        """Return the section with the way, shot and query of the test where it states none."""
        shape = {key: getattr(self, key) or getattr(test, key) for key in SHAPE}
        return self.model_copy(update=shape)


class Test(Options):
    """Test at the end, on fixed tasks of the test split: the same for every method and seed."""

    way: int = Field(
        default=5,
        ge=1,
        le=1000,
        json_schema_extra=_or_null,
        description="Classes per task; 1 in regression. Default: train.way for learners whose last layer has that many "
        "outputs (maml, reptile), 5 for others.",
    )
    shot: int = Field(
        default=1,
        ge=1,
        le=1000,
        json_schema_extra=_or_null,
        description="Support images per class (regression: points per task). Default: train.shot.",
    )
    query: int = Field(
        default=15,
        ge=1,
        le=1000,
        json_schema_extra=_or_null,
        description="Query images per class (regression: points per task). Default: train.query.",
    )
    episodes: int = Field(default=600, ge=2, le=10_000_000, description="Number of tasks.")
    checkpoint: Literal["best", "last"] = Field(
        default="best", description="best: highest validation score; last: the final step."
    )
    episode_seed: int = Field(
        default=0, ge=0, lt=2**31, description="Seed of the validation and test tasks. Keep it equal to compare runs."
    )
    dataset: OtherDataset = Field(
        default=None,
        description="Another image dataset to test on; its images are converted to those of the training. Default: "
        "the dataset of the training.",
        examples=[{"name": "glyphs"}],
    )
    convert: Literal["as-is", "invert"] | None = Field(
        default=None,
        description="With test.dataset: exchange light and dark (invert) or do not (as-is). Default: by the polarity "
        "of the ink, where it is known of both datasets or of neither.",
    )

    head: HeadOptions | None = Field(
        default=None,
        description="Another head on the trained features, in place of the method's own; of maml and reptile on what "
        "the last layer reads, without an inner loop. Default: the method's own.",
        examples=[{"name": "ridge"}],
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        """Remove what is null: it has its default, as where the spec says nothing."""
        if not isinstance(values, Mapping):
            return values
        return {key: value for key, value in values.items() if value is not None or key not in SHAPE}


class Published(Options):
    """Give the number in the paper that the experiment is to be compared with."""

    value: float = Field(
        description="In percent for accuracy (98.7), otherwise in the metric's own unit.", examples=[98.7]
    )
    ci95: float | None = Field(default=None, ge=0, description="Half-width of the printed interval.")
    source: str = Field(min_length=3, description="Paper and table.", examples=["Author et al. 2020, Table 1"])

"""The spec of an experiment: a frozen, validated description, read from YAML by `load.py`. No TensorFlow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from ...algorithms import ALGORITHMS, KINDS, Algorithm, Kind
from ...algorithms.networks import NETWORKS
from ...algorithms.networks.options import NetworkChoice
from ...algorithms.options import AlgorithmOptions, OptimizerOptions
from ...datasets import DATASETS
from ...datasets.options import DatasetOptions, Options

if not TYPE_CHECKING:  # with those of other packages
    AlgorithmOptions = Annotated[Union[tuple(one.options for one in ALGORITHMS.values())], Field(discriminator="name")]  # noqa: UP007
    DatasetOptions = Annotated[Union[tuple(DATASETS.values())], Field(discriminator="name")]  # noqa: UP007
    NetworkChoice = Annotated[Union[tuple(NETWORKS.values())], Field(discriminator="name")]  # noqa: UP007

# Compiling takes seconds; a small network's step saves milliseconds.
REPAYING_STEPS = {"conv4": 30, "mlp": 1000, "gru": 1}
NAMES = {"name", "description", "seeds", "published", "cluster"}  # what decides no result
Protocol = Literal["transductive", "inductive"]


class Train(Options):
    """Meta-training: the tasks, and how many steps."""

    way: int = Field(default=5, ge=1, le=1000, description="Classes per task; 1 in regression.")
    shot: int = Field(default=1, ge=1, le=1000, description="Support images per class (regression: points per task).")
    query: int = Field(default=15, ge=1, le=1000, description="Query images per class (regression: points per task).")
    meta_batch: int = Field(
        default=1, ge=1, le=1_000_000, description="Tasks per meta-update; for rl2 the trials per iteration."
    )
    steps: int = Field(ge=0, description="Meta-updates; for rl2 iterations.", examples=[1000])
    log_every: int = Field(default=100, ge=1, description="Steps between two rows of metrics.csv.")


class Validation(Options):
    """Validation during training, always on the same tasks of the validation split."""

    way: int | None = Field(default=None, ge=1, le=1000, description="Classes per task; default: test.way.")
    shot: int | None = Field(default=None, ge=1, le=1000, description="Support images per class; default: test.shot.")
    query: int | None = Field(default=None, ge=1, le=1000, description="Query images per class; default: test.query.")
    episodes: int = Field(default=100, ge=2, le=10_000_000, description="Number of tasks.")
    every: int = Field(default=500, ge=1, description="Steps between two validations; a checkpoint follows each.")


class Test(Options):
    """The final test, on fixed tasks of the test split: the same for every method and seed."""

    way: int = Field(default=5, ge=1, le=1000, description="Classes per task; 1 in regression.")
    shot: int = Field(default=1, ge=1, le=1000, description="Support images per class (regression: points per task).")
    query: int = Field(default=15, ge=1, le=1000, description="Query images per class (regression: points per task).")
    episodes: int = Field(default=600, ge=2, le=10_000_000, description="Number of tasks.")
    checkpoint: Literal["best", "last"] = Field(
        default="best", description="best: highest validation score; last: the final step."
    )
    episode_seed: int = Field(
        default=0, ge=0, lt=2**31, description="Seed of the validation and test tasks. Keep it equal to compare runs."
    )


class Published(Options):
    """The number in the paper that the experiment is to be compared with."""

    value: float = Field(
        description="In percent for accuracy (98.7), otherwise in the metric's own unit.", examples=[98.7]
    )
    ci95: float | None = Field(default=None, ge=0, description="Half-width of the printed interval.")
    source: str = Field(min_length=3, description="Paper and table.", examples=["Author et al. 2020, Table 1"])


def _some_time(told: str) -> str:
    """Refuse 0, which Slurm takes for no limit: a run without one is never asked to write a checkpoint."""
    if not told.strip("0:-"):
        raise PydanticCustomError("string_pattern_mismatch", "0 is no limit")
    return told


class Cluster(Options):
    """Settings of the jobs that train a run. Keys that the spec leaves out come from the file that METARUN_CLUSTER
    names, or from ~/.config/metarun/cluster.yaml, which has these same keys."""

    partition: str | None = Field(
        default=None, description="Partition in which jobs wait; default: the cluster's own.", examples=["gpu"]
    )
    time: Annotated[
        str, BeforeValidator(lambda told: str(told) if type(told) is int else told), AfterValidator(_some_time)
    ] = Field(
        default="1:00:00",
        pattern=r"^(\d+-)?\d{1,5}(:\d\d){0,2}$",
        description="Limit of a job in minutes, MM:SS, H:MM:SS, D-HH or D-HH:MM (4:00 is four minutes, 4:00:00 "
        "four hours). A run that needs longer is requeued and resumed.",
    )
    gpus: int = Field(default=0, ge=0, le=1024, description="GPUs per run, one per worker.")
    workers: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Processes that train a run together, on as many nodes as they need; default: one per GPU.",
    )
    cpus: int = Field(default=1, ge=1, le=1024, description="Cores of each worker, and its threads.")
    memory: str | None = Field(
        default=None, pattern=r"^\d+[KMGT]?$", description="Memory on each node, for example 8G.", examples=["8G"]
    )
    account: str | None = Field(default=None, description="Account that is charged.", examples=["project"])
    signal: str = Field(
        default="USR2@90",
        pattern=r"^(INT|TERM|USR1|USR2)@\d+$",
        description="Signal, and the seconds before the time limit when it is sent; the run then writes a checkpoint "
        "and is requeued.",
    )
    max_parallel: int | None = Field(default=None, ge=1, description="Runs at the same time; default: no limit.")
    setup: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Shell lines before the run, such as `module load cuda`.",
        examples=[["module load cuda"]],
    )
    slurm: dict[str, str | int | bool] = Field(
        default={},
        description="Other options of sbatch by their long names, for example {qos: low, exclusive: true}.",
        examples=[{"qos": "low"}],
    )

    @property
    def count(self) -> int:
        """Return the number of workers of each run."""
        return self.workers or max(1, self.gpus)


class Experiment(Options):
    """The description of an experiment: learner, tasks, training, test, and the number to compare with."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="Name of the folder of the runs; letters, digits, '.', '_' and '-'.",
        examples=["my-experiment"],
    )
    extends: str | None = Field(
        default=None,
        examples=["quickstart/maml"],
        exclude=True,  # a key of the file, not of the experiment
        description="Another spec: its name, or its path from this file. What this file leaves out is taken from it, "
        "except the name.",
    )
    description: str = Field(default="", description="Free text for readers.")
    algorithm: AlgorithmOptions = Field(description="What learns.")
    network: NetworkChoice | None = Field(default=None, description="What is trained; classical methods have none.")
    dataset: DatasetOptions = Field(description="Where the tasks come from.")
    protocol: Protocol | None = Field(
        default=None,
        description="How batch norm sees the queries: transductive (all queries of a task together) or "
        "inductive (each on its own). Required in every few-shot spec; trials have none.",
    )
    optimizer: OptimizerOptions = OptimizerOptions()
    train: Train = Field(default=Train(steps=0), description="Meta-training; classical methods have none.")
    validation: Validation | None = Field(
        default=Validation(), description="null: no validation, test the last checkpoint."
    )
    test: Test = Test()
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(
        default=(0,),
        strict=False,
        min_length=1,
        description="One run per seed. The seed sets the initial weights and the training tasks, not the test tasks.",
        examples=[[0, 1, 2]],
    )
    precision: Literal["float32", "bfloat16", "float64"] = Field(
        default="float32",
        description="Precision of all arithmetic. bfloat16: only the layers' activations and products (faster where "
        "the processor has the instructions); weights, batch-norm statistics, the last layer and losses stay float32.",
    )
    jit: Literal["auto", "on", "off"] | None = Field(
        default=None,
        description="Compile with XLA: on, off, or auto (the default): on if the training has enough steps to recover "
        "the compile time. Results with and without XLA differ by rounding only.",
    )
    published: Published | None = None
    cluster: Cluster | None = Field(default=None, description="Settings for `metarun submit`; they change no result.")

    @property
    def compiles(self) -> bool:
        """Return whether steps are compiled. The spec alone decides, so that a resumed run computes the same bits."""
        if self.jit in (None, "auto"):
            return self.network is not None and self.train.steps >= _repaying_steps(self.network)
        return self.jit == "on"

    @property
    def entry(self) -> Algorithm:
        """Return the algorithm's entry in `ALGORITHMS`."""
        return ALGORITHMS[self.algorithm.name]

    @property
    def kind(self) -> Kind:
        """Return the kind of the algorithm: whether it is trained, and on what tasks."""
        return KINDS[self.entry.kind]

    @property
    def digest(self) -> str:
        """Return sixteen hexadecimal digits that name everything that decides a result, except the seed.

        Options that are unset do not count, so that a version with a new one gives old specs their old digest.
        """
        told = self.model_dump(mode="json", exclude=NAMES, exclude_none=True)
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _repaying_steps(network: Any) -> int:
    """Return the training steps that repay compiling; for a network of another package by its own word, or as mlp."""
    return REPAYING_STEPS.get(network.name) or getattr(network, "steps_that_repay_compiling", REPAYING_STEPS["mlp"])


class Section(Options):
    """A file that holds a section of a spec."""

    cluster: Cluster


CHOICES: dict[str, dict[str, type[BaseModel]]] = {
    "algorithm": {name: entry.options for name, entry in ALGORITHMS.items()},
    "network": dict(NETWORKS),
    "dataset": dict(DATASETS),
}
SECTIONS: dict[str, type[BaseModel]] = {
    "optimizer": OptimizerOptions,
    "train": Train,
    "validation": Validation,
    "test": Test,
    "published": Published,
    "cluster": Cluster,
}


def section_model(section: str, told: Mapping[str, Any]) -> type[BaseModel] | None:
    """Return the model of a section with the values `told`; None for an unknown section, or an unknown name in it."""
    return CHOICES[section].get(str(told.get("name"))) if section in CHOICES else SECTIONS.get(section)


def effective(experiment: Experiment) -> dict[str, Any]:
    """Return every value as plain data. Options that are null by default and were not set are left out."""

    def pruned(value: Any, told_by: Any) -> Any:
        if not isinstance(value, dict):
            return value
        fields = type(told_by).model_fields if isinstance(told_by, BaseModel) else {}
        kept = {key for key, field in fields.items() if field.default is not None} | {"validation"}
        return {
            key: pruned(each, getattr(told_by, key, None))
            for key, each in value.items()
            if each is not None or key in kept
        }

    told = experiment.model_dump(mode="json")
    for section in ("train", "validation", "test") if experiment.kind.plays_trials else ():
        told[section] = told[section] and {k: v for k, v in told[section].items() if k not in ("way", "shot", "query")}
    for section in () if experiment.kind.is_trained else ("train", "optimizer"):
        del told[section]
    return pruned(told, experiment)

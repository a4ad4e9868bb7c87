"""The resources that a run asks of a cluster: the section `cluster` of a spec. No TensorFlow."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from ...datasets.options import Options

# options of sbatch that metarun sets, or after which it cannot find its jobs
OF_METARUN = ("array", "clusters", "error", "help", "job-name", "open-mode", "output", "parsable", "quiet")
OF_METARUN += ("test-only", "usage", "version", "wait", "wrap")


def _above_zero(time: str) -> str:
    """Refuse a time of 0: for Slurm it is no limit, and a run without one is never asked to write a checkpoint."""
    if not time.strip("0:-"):
        raise PydanticCustomError("string_pattern_mismatch", "0 is no limit")
    return time


def _value_for_sbatch(text: str) -> str:
    """Refuse a value with a character that cannot stand in the header of a script, or that sbatch drops."""
    if re.search(r"[\\\x00-\x1f\x7f]", text):
        raise PydanticCustomError(
            "for_sbatch", "a backslash, a line break or a control character is no value for sbatch"
        )
    return text


def _option_of_sbatch(name: str) -> str:
    """Refuse a name that is no long option of sbatch, and one that metarun sets itself."""
    dashed = name.replace("_", "-")
    if not re.fullmatch(r"[a-z][a-z0-9-]+", dashed):
        raise PydanticCustomError("for_sbatch", "expected the long name of an option of sbatch")
    if any(option.startswith(dashed) for option in OF_METARUN):  # sbatch takes abbreviations
        raise PydanticCustomError("for_sbatch", "metarun itself sets this option of sbatch: leave it out")
    return name


ForSbatch = Annotated[str, AfterValidator(_value_for_sbatch)]


class Cluster(Options):
    """Ask for the resources of a run on a cluster. Keys that the spec leaves out are taken from the file that
    METARUN_CLUSTER names, or from ~/.config/metarun/cluster.yaml."""

    partition: ForSbatch | None = Field(
        default=None, description="Partition in which jobs wait; default: the cluster's own.", examples=["gpu"]
    )
    time: Annotated[
        str, BeforeValidator(lambda time: str(time) if type(time) is int else time), AfterValidator(_above_zero)
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
    account: ForSbatch | None = Field(default=None, description="Account that is charged.", examples=["project"])
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
    slurm: dict[Annotated[str, AfterValidator(_option_of_sbatch)], ForSbatch | int | bool] = Field(
        default={},
        description="Other options of sbatch by their long names, for example {qos: low, exclusive: true}; not those "
        "that metarun sets itself, such as output and job-name.",
        examples=[{"qos": "low"}],
    )

    @property
    def count(self) -> int:
        """Return the number of workers of each run."""
        return self.workers or max(1, self.gpus)

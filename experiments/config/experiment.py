"""The description of an experiment: frozen, validated, and read from YAML by `load.py`. No TensorFlow."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import BaseModel, Field

from ...algorithms import ALGORITHMS, KINDS, Algorithm, Kind
from ...algorithms.networks import NETWORKS
from ...algorithms.networks.options import NetworkChoice
from ...algorithms.optimizer_options import OptimizerOptions
from ...algorithms.options import AlgorithmOptions
from ...datasets import DATASETS
from ...datasets.images.augmentation import Augment
from ...datasets.options import Options
from ...datasets.plugins import package_of
from .cluster import Cluster
from .sections import SHAPE, DatasetOptions, Published, Test, Train, Validation

if not TYPE_CHECKING:  # with those of other packages
    AlgorithmOptions = Annotated[Union[tuple(one.options for one in ALGORITHMS.values())], Field(discriminator="name")]  # noqa: UP007
    NetworkChoice = Annotated[Union[tuple(NETWORKS.values())], Field(discriminator="name")]  # noqa: UP007

# training steps after which XLA's compile time, seconds, is recovered
STEPS_THAT_REPAY_COMPILING = {"conv4": 30, "resnet12": 30, "mlp": 1000, "gru": 1}
NOT_IN_DIGEST = {"name", "description", "seeds", "published", "cluster", "device"}  # keys that cannot change a result
Protocol = Literal["transductive", "inductive"]


class Experiment(Options):
    """Define an experiment: the method, its training and test tasks, and the published number to compare with."""

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
    algorithm: AlgorithmOptions = Field(description="The method that learns.")
    network: NetworkChoice | None = Field(
        default=None, description="The network that is trained; methods without training have none."
    )
    dataset: DatasetOptions = Field(description="The source of the tasks.")
    augment: Augment | None = None
    protocol: Protocol | None = Field(
        default=None,
        description="How batch norm sees the queries: transductive (all queries of a task together) or "
        "inductive (each on its own). Required where a few-shot learner is trained; trials have none.",
    )
    optimizer: OptimizerOptions = OptimizerOptions()
    train: Train = Field(default=Train(steps=0), description="Meta-training; some methods have none.")
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
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = Field(
        default="float32",
        description="Precision of all arithmetic. bfloat16: only the layers' activations and products (faster with "
        "large images where the processor has AMX); weights, batch-norm statistics, the last layer and losses stay "
        "float32; shown to learn as well for protonet, and for maml with downsample: stride. tf32: float32 whose "
        "products a GPU computes from 10 bits of mantissa; refused without such a GPU.",
    )
    jit: Literal["auto", "on", "off"] | None = Field(
        default=None,
        description="Compile with XLA: on, off, or auto (the default): on if the training has enough steps to recover "
        "the compile time. Results with and without XLA differ by rounding only.",
    )
    device: Literal["gpu"] | None = Field(
        default=None,
        description="gpu: refuse to work without a GPU. By default one is used if TensorFlow finds it.",
    )
    published: Published | None = None
    cluster: Cluster | None = Field(default=None, description="Settings for `metarun submit`; they change no result.")

    @property
    def compiles(self) -> bool:
        """Return whether to compile with XLA: `jit`, with auto decided.

        The answer depends on the spec alone, so that a resumed run computes the same bits.
        """
        if self.jit in (None, "auto"):
            return self.network is not None and self.train.steps >= _repaying_steps(self.network)
        return self.jit == "on"

    @property
    def entry(self) -> Algorithm:
        """Return the algorithm's entry in `ALGORITHMS`."""
        return ALGORITHMS[self.algorithm.name]

    @property
    def kind(self) -> Kind:
        """Return the kind of algorithm: whether it is trained, and on which tasks."""
        return KINDS[self.entry.kind]

    @property
    def plugins(self) -> str:
        """Return the other packages whose code it runs: "dataset NAME VERSION DIGEST; ..."; "" if there are none."""
        used = {section: package_of(getattr(self, section)) for section in CHOICES}
        return "; ".join(f"{section} {package}" for section, package in used.items() if package)

    @property
    def test_plugins(self) -> str:
        """Return `plugins` with the package of the other dataset of the test."""
        package = package_of(self.test.dataset) if self.test.dataset else ""
        return "; ".join(filter(None, [self.plugins, package and f"test-dataset {package}"]))

    @property
    def tested(self) -> Any:
        """Return the options of the dataset that the test's tasks are drawn from."""
        return self.test.dataset or self.dataset

    @property
    def elsewhere(self) -> str:
        """Return a name of the other dataset of the test and its options, for a file name; "" without one."""
        dataset, convert = self.test.dataset, self.test.convert
        if dataset is None:
            return ""
        return _named(dataset, convert=convert)

    @property
    def headed(self) -> str:
        """Return a name of the head of the test and its options, for a file name; "" for the method's own."""
        return _named(self.test.head) if self.test.head else ""

    @property
    def head_values(self) -> str:
        """Return the head of the test with its options that are no defaults, as JSON; "" for the method's own."""
        head: Any = self.test.head
        return json.dumps({"name": head.name} | head.model_dump(mode="json", exclude_defaults=True)) if head else ""

    @property
    def only_way(self) -> int | None:
        """Return the number of classes that the last layer has; None if the test's head can tell any number apart."""
        return self.train.way if self.entry.has_head and not self.test.head else None

    @property
    def tested_steps(self) -> int | None:
        """Return the number of inner steps of the test; None without an inner loop, which another head has not."""
        steps = getattr(self.algorithm, "test_inner_steps", None)
        steps = getattr(self.algorithm, "inner_steps", None) if steps is None else steps
        return None if self.test.head else steps

    @property
    def tested_values(self) -> dict[str, Any]:
        """Return the options of the other dataset of the test, as plain data without places, with `convert`."""
        if self.test.dataset is None:
            return {}
        dataset = self.test.dataset
        silent = {"in_memory"} | dataset.located | dataset.of_network  # they change no task of this test
        values = dataset.model_dump(mode="json", exclude_none=True, exclude=silent)
        return values | ({"convert": self.test.convert} if self.test.convert else {})

    @property
    def taken(self) -> tuple[str, ...]:
        """Return the options of the test that are those of the training, because the test says nothing of them.

        That is way only if the learner has an output for each class.
        """
        trains_on_episodes = not (self.kind.plays_trials or self.kind.trains_on_images)
        options = () if not trains_on_episodes else SHAPE if self.entry.has_head else SHAPE[1:]
        return tuple(option for option in options if option not in self.test.model_fields_set)

    @property
    def deciding(self) -> dict[str, Any]:
        """Return all values that can change a result, the seed aside, as plain data.

        Options that are unset are left out, so that a new option does not change the digests of old specs. So is the
        place of the data, and of the weights that a network starts from: their content decides.
        """
        values = self.model_dump(mode="json", exclude=NOT_IN_DIGEST, exclude_none=True)
        if "init_digest" in values.get("network", {}):
            values["network"].pop("init", None)
        for key in self.dataset.located:
            values["dataset"].pop(key, None)
        for key in self.tested.located:
            values["test"].get("dataset", {}).pop(key, None)
        return values

    @property
    def deciding_training(self) -> dict[str, Any]:
        """Return the values of `deciding` that can change a trained model, with the shape of the validation tasks.

        Validation chooses the best checkpoint, so its tasks belong to the training. The test does not.
        """
        values = self.deciding
        seed = values.pop("test")["episode_seed"]
        if self.validation:
            filled = self.validation.filled(self.test).model_dump(mode="json", exclude_none=True)
            values["validation"] = filled | {"episode_seed": seed}
        else:
            values["algorithm"] = {
                key: value for key, value in values["algorithm"].items() if key not in self.algorithm.of_tests
            }
        return values

    @property
    def digest(self) -> str:
        """Return 16 hexadecimal digits of a hash of all values that can change a result; the seed is not among them."""
        return _digest(self.deciding)

    @property
    def training_digest(self) -> str:
        """Return the digest of what decides the trained model: specs that differ in the test alone share it."""
        return _digest(self.deciding_training)

    @property
    def former_digest(self) -> str:
        """Return the digest that older versions gave to the spec, in which the place of the data counted."""
        return _digest(self.model_dump(mode="json", exclude=NOT_IN_DIGEST, exclude_none=True))


def settled(experiment: Experiment) -> Experiment:
    """Return the experiment without a `test.dataset` that is the dataset of the training."""
    test = experiment.test
    if test.dataset is None or test.convert or _plain(test.dataset) != _plain(experiment.dataset):
        return experiment
    return experiment.model_copy(update={"test": test.model_copy(update={"dataset": None})})


def _named(options: Any, **more: Any) -> str:
    """Return the name of options for a file name, with a digest of all of them unless they are the defaults."""
    name = re.sub(r"[^\w.-]", "_", options.name)
    if not any(more.values()) and not any(map(options.is_changed, type(options).model_fields)):
        return name
    return f"{name}-{_digest({**options.model_dump(mode='json'), **more})[:8]}"


def _plain(dataset: Options) -> Options:
    """Return the options of a dataset without those that have no effect where it is only tested."""
    fields = type(dataset).model_fields
    return dataset.model_copy(update={option: fields[option].default for option in dataset.of_network})


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _repaying_steps(network: Any) -> int:
    """Return the training steps after which compiling has paid off; a network of another package may give its own."""
    known = STEPS_THAT_REPAY_COMPILING
    return known.get(network.name) or getattr(network, "steps_that_repay_compiling", known["mlp"])


class Section(Options):
    """Define a file that holds a section of a spec."""

    cluster: Cluster


CHOICES: dict[str, dict[str, type[BaseModel]]] = {
    "algorithm": {name: entry.options for name, entry in ALGORITHMS.items()},
    "network": dict(NETWORKS),
    "dataset": dict(DATASETS),
}
SECTIONS: dict[str, type[BaseModel]] = {
    "augment": Augment,
    "optimizer": OptimizerOptions,
    "train": Train,
    "validation": Validation,
    "test": Test,
    "published": Published,
    "cluster": Cluster,
}


def section_model(section: str, values: Mapping[str, Any]) -> type[BaseModel] | None:
    """Return the class of options of a section with these values; None for an unknown section or `name`."""
    return CHOICES[section].get(str(values.get("name"))) if section in CHOICES else SECTIONS.get(section)


def effective(experiment: Experiment) -> dict[str, Any]:
    """Return all values of an experiment as plain data.

    Options that are null by default, and unset, are left out. So are sections and keys that its kind does not have.
    """

    def pruned(value: Any, owner: Any) -> Any:
        if not isinstance(value, dict):
            return value
        fields = type(owner).model_fields if isinstance(owner, BaseModel) else {}
        kept = {key for key, field in fields.items() if field.default is not None} | {"validation"}
        return {
            key: pruned(each, getattr(owner, key, None))
            for key, each in value.items()
            if each is not None or key in kept
        }

    values = experiment.model_dump(mode="json")
    shapeless = ("train", "validation", "test") if experiment.kind.plays_trials else ()
    for section in ("train",) if experiment.kind.trains_on_images else shapeless:
        options = values[section]
        values[section] = options and {k: v for k, v in options.items() if k not in SHAPE}
    for section in () if experiment.kind.is_trained else ("train", "optimizer"):
        del values[section]
    return pruned(values, experiment)

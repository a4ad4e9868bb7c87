"""A run: its experiment, its seed and its folder, and the run that the folder holds already. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from ...datasets import DATASETS
from ...datasets.errors import DataError
from ..config.experiment import Experiment
from ..config.load import former_digest, is_moved, load, resolved_yaml
from ..config.messages import differences
from ..config.sections import SHAPE
from ..config.variants import is_beginning, with_test, with_validation_of
from ..errors import RunError, SpecError, warn
from ..system.atomic import write_json_atomic, write_text_atomic
from .directory import RunDirectory
from .rows import Row, read_row
from .weights import settled


class Stored(NamedTuple):
    """Hold the run that a folder holds."""

    digest: str  # of its spec
    seeds: tuple[int, ...]
    spec: Experiment | None  # None: it cannot be read, or its digest is that of the run which asked


@dataclass(frozen=True)
class Run:
    """Hold a training of one seed, its own test, and further tests of the trained model."""

    experiment: Experiment
    seed: int
    directory: RunDirectory
    tests: tuple[Mapping[str, Any], ...] = ()  # further tests: the changes of each, as `evaluate` takes them
    until: int | None = None  # the step at which a search by validation stops it; its test is withheld
    selected_of: int | None = None  # the configurations among which validation chose it

    @classmethod
    def at(cls, out: Path, experiment: Experiment, seed: int) -> Run:
        """Return the run of an experiment and a seed in its folder below `out`: OUT/<experiment>/seed-<n>.

        Raises SpecError if it starts from the weights of a run that cannot be read.
        """
        directory = RunDirectory(out / experiment.name / f"seed-{seed}")
        return cls(settled(experiment, directory), seed, directory)

    @property
    def finished(self) -> bool:
        """Return whether the rows of its own test and of all further tests exist; in a search, whether it is trained.

        The row of a run that was chosen by validation says so.
        """
        if self.until is not None:
            return self.directory.finished or is_searched(self.directory, self.experiment, self.until)
        if not self.directory.finished:
            return False
        if self.selected_of and read_row(self.directory.result).selected_of != self.selected_of:
            return False
        return all(
            self.directory.row_of(
                self.experiment, with_test(self.experiment, test), test.get("split", "test")
            ).is_file()
            for test in self.tests
        )

    @property
    def datasets(self) -> list[Any]:
        """Return the options of the datasets of its training and of all its tests."""
        tests = [self.experiment, *(with_test(self.experiment, test) for test in self.tests)]
        found = [self.experiment.dataset, *(test.tested for test in tests)]
        return list({options.model_dump_json(): options for options in found}.values())

    def write_spec(self) -> None:
        """Write the resolved spec of this one seed to spec.yaml, unless it is there already."""
        text = resolved_yaml(self.experiment.model_copy(update={"seeds": (self.seed,), "cluster": None}))
        path = self.directory.spec
        if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
            write_text_atomic(path, text)

    def write_search(self) -> None:
        """Write what a search by validation does with the run to search.json. A run that is tested has no `until`."""
        directory = self.directory
        if self.until is not None and not directory.finished:
            if directory.until != self.until:
                write_json_atomic(directory.search, {"until": self.until})
        elif self.selected_of:
            write_json_atomic(directory.search, {"selected_of": self.selected_of})
        elif directory.until is not None:
            directory.search.unlink(missing_ok=True)

    def stored(self) -> Stored | None:
        """Return the run that the folder holds, finished or not, or None without one.

        Raises RunError if its files are damaged, or cannot be read.
        """
        try:
            if self.directory.finished:
                row = read_row(self.directory.result)
                if row.spec_digest == self.experiment.digest:
                    return Stored(row.spec_digest, (row.seed,), None)
                return Stored(digest_of(self.directory, row), (row.seed,), readable_spec(self.directory))
            if not self.directory.spec.exists():
                return None
        except OSError as error:
            raise RunError(f"{self.directory.path} cannot be read: {error.strerror}") from None
        spec = spec_of(self.directory)
        return Stored(spec.digest, spec.seeds, spec)

    def as_trained(self) -> Run:
        """Return the run with the validation of the training that its folder holds, if only the test has changed.

        A folder without a checkpoint and without a row holds no training, so the run is returned as it is.
        """
        finished = self.directory.finished
        spec = readable_spec(self.directory) if finished or self.directory.step else None
        experiment = with_validation_of(spec, self.experiment) if spec else self.experiment
        if finished and spec and experiment.digest != spec.digest:  # of another test
            return self
        return replace(self, experiment=experiment)

    @property
    def is_moved(self) -> bool:
        """Return whether the data are in another place than when the run was trained; False if that is not known."""
        try:
            return bool(self.experiment.dataset.located) and is_moved(self.directory.spec, self.experiment)
        except SpecError:
            return False

    def holds_another_spec(self, found: Stored | None) -> bool:
        """Return whether what the folder holds was trained with another spec, or finished with another test.

        Args:
            found: the result of `stored`.
        """
        if found is None:
            return False
        own, spec = self.experiment, found.spec
        if self.directory.finished:
            return found.digest not in (own.digest, with_validation_of(spec, own).digest if spec else "")
        if spec is None or spec.training_digest == own.training_digest:
            return False
        return not self.directory.step or with_validation_of(spec, own) is own

    def replaces_failure(self) -> bool:
        """Return whether the folder holds nothing but an attempt of another spec, failed before its first checkpoint.

        That attempt is set aside: what its error advised, such as a smaller meta-batch, makes another spec.
        """
        directory = self.directory
        lost_nothing = directory.failure.is_file() and not (directory.finished or directory.step)
        return lost_nothing and self.holds_another_spec(self.stored())

    def refuse_another_spec(self) -> None:
        """Raise RunError if the folder holds a run of another seed, spec or data.

        Finished, it must have the same test. Unfinished, it must be the same training; the test may have changed.
        """
        found, path = self.stored(), self.directory.path
        if found is None:
            return
        finished = self.directory.finished
        state = "the finished run" if finished else "an unfinished run"
        if self.seed not in found.seeds:
            raise RunError(f"{path} holds {state} of seed {found.seeds[0]}: move it to its own folder")
        if self.holds_another_spec(found) and not self.replaces_failure():
            way_out = "rename the experiment (-s name=...), choose another --out, or set it aside (--fresh)"
            if self.until is not None or self.selected_of:  # a search refuses --fresh
                way_out = "give this search a name of its own (-s name=...), or choose another --out"
            if found.spec and self._continues(found.spec):
                way_out = "give this longer one a name of its own (-s name=...), and it continues the shorter one"
            elif self._is_trained and found.spec and _untested(found.spec) == _untested(self.experiment):
                way_out = (
                    f"`metarun evaluate {path}` tests the trained model in another way and adds a row; or {way_out}"
                )
            raise RunError(
                f"{path} holds {state} of another spec, {self.changes_from(found)}(digest {found.digest}, this one has "
                f"{self.experiment.digest}): {way_out}"
            )
        if finished:
            refuse_other_code(read_row(self.directory.result).plugins, self.experiment, self.directory)
        if finished and self.is_moved:
            self.refuse_other_data()

    def _continues(self, spec: Experiment) -> bool:
        """Return whether this training, in a folder of its own, continues the one with this spec in the folder."""
        return is_beginning(spec, self.experiment) and self.directory.step < self.experiment.train.steps

    @property
    def _is_trained(self) -> bool:
        """Return whether the folder holds a training that is done."""
        return self.directory.finished or training_is_done(self.directory, self.experiment)

    def changes_from(self, found: Stored) -> str:
        """Return the keys in which the spec that the folder holds differs, with both values, or "" if unknown."""
        words = differences(found.spec.deciding, self.experiment.deciding) if found.spec else ""
        return f"{words} " if words else ""

    def refuse_other_data(self) -> None:
        """Raise RunError if the finished run was trained on other data than those that the spec names now.

        Imports TensorFlow. Data that are no longer where the run found them are not compared.

        Raises:
            DataError: the data are in another place, and cannot be read there.
        """
        row, dataset = read_row(self.directory.result), self.experiment.dataset
        if not (dataset.located and (row.content_digest or self.is_moved)):
            return
        from ... import datasets

        try:
            source: Any = datasets.build(dataset)
        except DataError:
            if self.is_moved:
                raise
            return
        known = {source.content_digest[:16]} | (set() if self.is_moved else {getattr(source, "former_digest", "")[:16]})
        if row.content_digest not in known:
            raise RunError(
                f"{self.directory.path} holds the finished run on other data than {source.name} has now (digest "
                f"{row.content_digest or 'unknown'}, these have {source.content_digest[:16]}): rename the experiment "
                "(-s name=...), choose another --out, or set it aside (--fresh)"
            )


def _untested(experiment: Experiment) -> dict[str, Any]:
    """Return the values of a spec without its test."""
    return {key: value for key, value in experiment.deciding.items() if key != "test"}


def keep_validation(run: Run) -> Run:
    """Return the run as `as_trained` does, with a warning if a changed test would have changed its validation."""
    settled = run.as_trained()
    before, now = run.experiment.validation, settled.experiment.validation
    if before and now and before != now:
        values = {key: getattr(now, key) for key in SHAPE if getattr(now, key) != getattr(before, key)}
        kept = " ".join(f"-s validation.{key}={value}" for key, value in values.items())
        warn(f"{run.directory.path} keeps the validation tasks that it was trained with, as by {kept}")
    return settled


def is_out_of_patience(experiment: Experiment, step: int, best_step: int) -> bool:
    """Return whether the training ends after `step`: train.patience validations since `best_step` were no better."""
    patience, validation = experiment.train.patience, experiment.validation
    if patience is None or validation is None:
        return False
    return step // validation.every - best_step // validation.every >= patience


def training_is_done(directory: RunDirectory, experiment: Experiment) -> bool:
    """Return whether the newest checkpoint in the folder of a run is that of the end of its training.

    Args:
        directory: the folder.
        experiment: the experiment that is trained there.
    """
    step = directory.step
    if not step or step == experiment.train.steps or experiment.train.patience is None:
        return step == experiment.train.steps > 0
    from . import checkpoint  # it imports NumPy, which the quick verbs do without

    try:
        state, _ = checkpoint.read(directory.checkpoint(step))
    except RunError:
        return False
    return is_out_of_patience(experiment, step, state["best_step"])


def is_searched(directory: RunDirectory, experiment: Experiment, until: int) -> bool:
    """Return whether the run of a search has trained up to the step `until`, or ended before by train.patience."""
    return directory.step >= until or training_is_done(directory, experiment)


def digest_of(directory: RunDirectory, row: Row) -> str:
    """Return the spec digest of a row as this version computes it.

    Older versions counted the place of the data. Their digest is translated if the row says which data they were.

    Args:
        directory: the folder of the run.
        row: its row, or that of another test of it.
    """
    if not (row.content_digest and row.trained_on in DATASETS and DATASETS[row.trained_on].located):
        return row.spec_digest
    spec = readable_spec(directory)
    return spec.digest if spec and former_digest(directory.spec, spec) == row.spec_digest else row.spec_digest


def readable_spec(directory: RunDirectory) -> Experiment | None:
    """Return the experiment of the run in a folder, or None if its spec cannot be read."""
    try:
        return spec_of(directory) if directory.spec.exists() else None
    except RunError:
        return None


def refuse_other_code(plugins: str, experiment: Experiment, directory: RunDirectory) -> None:
    """Raise RunError if the code of another package is not that with which a run was trained or tested.

    A version alone is no other code.

    Args:
        plugins: `Experiment.plugins` or `test_plugins` as the run has it, or "" of a run of an older metarun.
        experiment: the experiment, with the packages as they are installed now.
        directory: the folder of the run, for the message.
    """
    before, now = code_of(plugins), code_of(experiment.test_plugins)
    if changed := [section for section in before if section in now and before[section][-1] != now[section][-1]]:
        former, current = (" ".join(code[changed[0]]) for code in (before, now))
        raise RunError(
            f"{directory.path} has other code of its {changed[0]}, {former}, than is installed now, {current} (name, "
            "version, digest of the source): restore it, give the new one a run of its own (-s name=...), or train "
            "again with --fresh"
        )


def code_of(plugins: str) -> dict[str, tuple[str, str, str]]:
    """Return name, version and digest of the source of the package behind each section in `Experiment.plugins`."""
    parts = [each.split(" ") for each in plugins.split("; ") if each]
    return {part[0]: (" ".join(part[1:-2]), part[-2], part[-1]) for part in parts}


def spec_of(directory: RunDirectory) -> Experiment:
    """Return the experiment of the run in a folder, without a published number that only older versions took.

    Raises RunError if its spec cannot be read.
    """
    problems: list[str] = []
    for overrides in ((), ("published=null",)):
        try:
            return load(directory.spec, overrides, "metarun").experiment
        except SpecError as error:
            problems = problems or error.problems
    raise RunError(f"{directory.path} cannot be read: {'; '.join(problems)}")

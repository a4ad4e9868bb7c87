"""A run: its experiment, its seed and its folder, and the run that the folder holds already. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..config.experiment import Experiment
from ..config.load import load, resolved_yaml
from ..config.variants import is_beginning, with_test
from ..errors import RunError, SpecError
from ..system.atomic import write_text_atomic
from .directory import RunDirectory
from .rows import Row, read_row


@dataclass(frozen=True)
class Run:
    """A training of one seed, its own test, and further tests of the trained model."""

    experiment: Experiment
    seed: int
    directory: RunDirectory
    tests: tuple[Mapping[str, Any], ...] = ()  # further tests: the changes of each, as `evaluate` takes them

    @classmethod
    def at(cls, out: Path, experiment: Experiment, seed: int) -> Run:
        """Return the run of an experiment and a seed in its folder below `out`: OUT/<experiment>/seed-<n>."""
        return cls(experiment, seed, RunDirectory(out / experiment.name / f"seed-{seed}"))

    @property
    def finished(self) -> bool:
        """Return whether the rows of its own test and of all further tests exist."""
        return self.directory.finished and all(
            self.directory.row_of(self.experiment, with_test(self.experiment, test)).is_file() for test in self.tests
        )

    def write_spec(self) -> None:
        """Write the resolved spec of this one seed to spec.yaml, unless it is there already."""
        text = resolved_yaml(self.experiment.model_copy(update={"seeds": (self.seed,), "cluster": None}))
        path = self.directory.spec
        if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
            write_text_atomic(path, text)

    def stored(self) -> tuple[str, tuple[int, ...]] | None:
        """Return spec digest and seeds of the run that the folder holds, finished or not, or None without one.

        Raises RunError if its files are damaged, or cannot be read.
        """
        try:
            if self.directory.finished:
                row = read_row(self.directory.result)
                return row.spec_digest, (row.seed,)
            if not self.directory.spec.exists():
                return None
        except OSError as error:
            raise RunError(f"{self.directory.path} cannot be read: {error.strerror}") from None
        spec = spec_of(self.directory)
        return spec.digest, spec.seeds

    def refuse_another_spec(self) -> None:
        """Raise RunError if the folder holds a run, finished or not, of another spec digest or another seed."""
        found, path = self.stored(), self.directory.path
        if found is None:
            return
        state = "the finished run" if self.directory.finished else "an unfinished run"
        digest, seeds = found
        if self.seed not in seeds:
            raise RunError(f"{path} holds {state} of seed {seeds[0]}: move it to its own folder")
        if digest != self.experiment.digest:
            way_out = "rename the experiment (-s name=...), choose another --out, or set it aside (--fresh)"
            if self.directory.spec.is_file() and is_beginning(spec_of(self.directory), self.experiment):
                way_out = "give this longer one a name of its own (-s name=...), and it continues the shorter one"
            raise RunError(
                f"{path} holds {state} of another spec (digest {digest}, this one has {self.experiment.digest}): "
                + way_out
            )
        if self.directory.finished:
            refuse_other_code(read_row(self.directory.result).plugins, self.experiment, self.directory)


def refuse_other_code(plugins: str, experiment: Experiment, directory: RunDirectory) -> None:
    """Raise RunError if the code of another package is not that with which a run was trained or tested.

    A version alone is no other code.

    Args:
        plugins: `Experiment.plugins` as the run has it, or "" of a run of an older metarun.
        experiment: the experiment, with the packages as they are installed now.
        directory: the folder of the run, for the message.
    """
    before, now = code_of(plugins), code_of(experiment.plugins)
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
    """Return the experiment of the run in a folder, without the published number, which is in its row.

    Raises RunError if its spec cannot be read.
    """
    try:
        return load(directory.spec, ["published=null"], "metarun").experiment  # older versions took any number there
    except SpecError as error:
        raise RunError(f"{directory.path} cannot be read: {'; '.join(error.problems)}") from None


class Retest(NamedTuple):
    """Another test of a finished run, as `metarun evaluate` asks for it."""

    directory: RunDirectory
    trained: Row
    spec: Experiment  # as it was trained
    experiment: Experiment  # with the other test
    path: Path  # the file of the other test's row


def retest(run: Path, split: str, changes: Mapping[str, Any]) -> Retest:
    """Return another test of the finished run in the folder `run`.

    Args:
        run: the folder of the run.
        split: the split whose classes are drawn.
        changes: options of the test that differ, as `evaluate` takes them.

    Raises:
        RunError: the run is not trained, or its spec or the code of another package was changed afterwards.
        SpecError: the changes do not fit the run.
    """
    directory = RunDirectory(run)
    if not directory.finished:
        raise RunError(f"{run} has no result.json: give the folder of a finished run, such as runs/NAME/seed-0")
    trained, spec = read_row(directory.result), spec_of(directory)
    if not spec.kind.is_trained:
        raise RunError(f"{run}: {spec.algorithm.name} is not trained: run `metarun train` on a spec with another test")
    if spec.digest != trained.spec_digest and spec.dataset.name != "imagefolder":  # whose images may have been moved
        raise RunError(
            f"{directory.spec} is not the spec that the run was trained with (digest {spec.digest}, its row has "
            f"{trained.spec_digest}): restore it, and change the test by options of `metarun evaluate`"
        )
    refuse_other_code(trained.plugins, spec, directory)
    experiment = with_test(spec, changes)
    return Retest(directory, trained, spec, experiment, directory.row_of(spec, experiment, split))

"""Pack a finished run into one file, and unpack it into a new folder of runs. No TensorFlow.

An archive (`system/archives.py`) has what a finished run is read for: its spec, where it was trained, its curve, the
checkpoint that was tested, the values of each test task and its row; further tests in evaluations/ if they are small.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from ..config.document import read as read_document
from ..config.experiment import Experiment
from ..errors import RunError, SpecError
from ..system import archives
from ..system.atomic import naming, write_bytes_atomic
from . import checkpoint
from .directory import PACKED, ROW, UNPACKING, RunDirectory
from .rows import Row, read_row
from .run import digest_of, spec_of
from .trained import refuse_checkpoint_of_another_spec

FILES = ("spec.yaml", "environment.json", "inputs.json", "temperature.json")
FILES += ("metrics.csv", "episodes.csv", "calibration.csv", "curves.csv", "tuning.csv")
SMALL = 4 << 20  # bytes of a further test that travels


def pack(run: Path, file: Path) -> list[str]:
    """Write a finished run into an archive, and return what the archive leaves out, a line each.

    Args:
        run: the folder of the run.
        file: the archive; it must not exist.

    Raises:
        RunError: the run is not finished, its spec was changed afterwards, or the file exists.
    """
    directory = RunDirectory(run)
    row, spec = checked(directory)
    if file.exists():
        raise RunError(f"{file} exists: choose another name, or remove it")
    members = {path.name: path.read_bytes() for name in FILES if (path := run / name).is_file()}
    if (weights := tested_checkpoint(directory, spec, row)) is not None:
        members[weights.relative_to(run).as_posix()] = weights.read_bytes()
    members[ROW] = directory.result.read_bytes()
    left = []
    for further in sorted(directory.evaluations.glob("*.json")):
        files = [each for each in (further, further.with_suffix(".csv")) if each.is_file()]
        names = [each.relative_to(run).as_posix() for each in files]
        if not all(map(PACKED.fullmatch, names)):
            left.append(f"{further} is left out: its name is too long, or not of A-Z, a-z, 0-9, _, - and .")
        elif sum(each.stat().st_size for each in files) > SMALL:
            left.append(f"{further} is left out: it has more than {SMALL >> 20} MB")
        else:
            members |= {name: each.read_bytes() for name, each in zip(names, files, strict=True)}
    archives.write(file, members, {"metarun": version("metarun"), "experiment": spec.name, "seed": row.seed})
    return left + _places(spec)


def unpack(file: Path, out: Path) -> tuple[RunDirectory, list[str]]:
    """Unpack an archive into OUT/<experiment>/seed-<n>, whole or not at all.

    Args:
        file: the archive; it is checked as one that a stranger made.
        out: the folder of the runs.

    Returns:
        The folder of the run, and what does not travel, a line each.

    Raises:
        RunError: the file is no archive of a run, is damaged, or contradicts itself; or the folder of the run exists.
    """
    members = archives.read(file, PACKED)
    if missing := {"spec.yaml", "episodes.csv", ROW} - members.keys():
        raise RunError(f"{file} has no {sorted(missing)[0]}: it holds no finished run")
    out.mkdir(parents=True, exist_ok=True)
    with naming(out):
        folder = Path(tempfile.mkdtemp(prefix=UNPACKING, dir=out))
    try:
        for name, data in members.items():
            write_bytes_atomic(folder / name, data)
        spec, row = _checked_as_foreign(file, RunDirectory(folder))
        directory = RunDirectory(out / spec.name / f"seed-{row.seed}")
        if directory.path.exists() or directory.path.is_symlink():
            raise RunError(f"{directory.path} exists, and is not overwritten: choose another --out")
        directory.path.parent.mkdir(exist_ok=True)
        folder.chmod(directory.path.parent.stat().st_mode & 0o777)
        try:
            folder.rename(directory.path)
        except OSError as error:
            raise RunError(f"{directory.path} cannot be made: {error.strerror}") from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return directory, _places(spec)


@contextmanager
def opened(place: Path) -> Iterator[RunDirectory]:
    """Hold the folder of a run inside the block: `place` itself, or a temporary one with what the file `place` holds.

    Raises RunError if the file is no archive of a run.
    """
    if place.is_dir():
        yield RunDirectory(place)
        return
    with tempfile.TemporaryDirectory(prefix="metarun-") as folder:
        directory, _ = unpack(place, Path(folder))
        try:
            yield directory
        except RunError as error:
            raise RunError(str(error).replace(str(directory.path), str(place))) from None


def checked(directory: RunDirectory) -> tuple[Row, Experiment]:
    """Return the row and the spec of a finished run. Raises RunError if they do not belong together."""
    if not directory.finished:
        raise RunError(
            f"{directory.path} has no result.json: give the folder of a finished run, such as runs/NAME/seed-0"
        )
    row, spec = read_row(directory.result), spec_of(directory)
    if digest_of(directory, row) != spec.digest:
        raise RunError(
            f"{directory.spec} is not the spec of its row (digest {spec.digest}, the row has {row.spec_digest}): "
            "restore it"
        )
    told = {"experiment": spec.name, "algorithm": spec.algorithm.name, "dataset": spec.dataset.name, "split": "test",
            "protocol": spec.protocol, "episodes": spec.test.episodes, "checkpoint": spec.test.checkpoint,
            "precision": spec.precision}  # fmt: skip
    told |= {} if row.stopped_early and spec.train.patience else {"train_steps": spec.train.steps}
    told |= {} if spec.kind.plays_trials else {key: getattr(spec.test, key) for key in ("way", "shot", "query")}
    told |= {} if spec.kind.is_trained else {"checkpoint": row.checkpoint}
    for key, value in told.items():
        if getattr(row, key) != value:
            raise RunError(f"{directory.result} was changed: {key} is {getattr(row, key)}, and {value} in its spec")
    if row.seed not in spec.seeds:
        raise RunError(f"{directory.result} was changed: seed is {row.seed}, and {spec.seeds[0]} in its spec")
    return row, spec


def tested_checkpoint(directory: RunDirectory, spec: Experiment, row: Row) -> Path | None:
    """Return the checkpoint that the row of a run measures, or None for a method that is not trained.

    Raises RunError if it is missing.
    """
    if not spec.kind.is_trained:
        return None
    path = directory.best if row.checkpoint == "best" else directory.checkpoint(row.train_steps)
    if not path.is_file():
        raise RunError(f"{path} is missing, the checkpoint that was tested: restore it, or train again with --fresh")
    return path


def _checked_as_foreign(file: Path, directory: RunDirectory) -> tuple[Experiment, Row]:
    """Return the spec and the row of an unpacked folder. Raises RunError if its files contradict each other."""
    try:
        if "extends" in read_document(directory.spec).values:
            raise RunError("its spec extends another file, which the spec of a run never does")
        row, spec = checked(directory)
        path = tested_checkpoint(directory, spec, row)
        if path:
            refuse_checkpoint_of_another_spec(path, checkpoint.read(path)[0], spec)
        for further in directory.evaluations.glob("*.json"):
            read_row(further)
    except (RunError, SpecError) as error:
        told = str(error).replace(f"{directory.path}/", "").replace(f"{directory.path} ", "")
        raise RunError(f"{file}: {told}") from None
    return spec, row


def _places(spec: Experiment) -> list[str]:
    """Return what of a run stays on its machine: the places of data, in words."""
    return [
        f"dataset.{key} {getattr(spec.dataset, key)} does not travel with the run. Where the same data are elsewhere: "
        f"metarun train RUN/spec.yaml -s dataset.{key}=THERE --out OUT (compares the images, trains nothing)"
        for key in sorted(spec.dataset.located)
    ]

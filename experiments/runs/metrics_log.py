"""Write metrics.csv, and the same numbers as TensorBoard scalars.

metrics.csv decides. A resumed run removes the lines after its checkpoint and rewrites the TensorBoard folder from the
rest. So both end as those of an undisturbed run, except for times.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Mapping, Sequence

import tensorflow as tf

from ...datasets.sharing import make_folder
from ..errors import RunError
from ..system.atomic import naming, write_text_atomic
from .directory import RunDirectory

FIXED = ("step", "split")
SPLITS = ("train", "val")
SCALAR = tf.compat.v1.SummaryMetadata(plugin_data={"plugin_name": "scalars"})  # tf.summary.scalar needs TensorBoard
TIMES = ("seconds", "tasks_per_second")
ADDED = ("diverged",)  # columns that files of earlier versions lack


class MetricsLog:
    """Log the metrics of a run. Each row is on the disk before `write` returns."""

    def __init__(self, directory: RunDirectory, names: Sequence[str], step: int):
        """Open the log of a run, and drop rows after `step`.

        Args:
            directory: the folder of the run.
            names: the columns of metrics.
            step: the step at which the run starts or resumes.

        Raises:
            RunError: the file has other columns, or a line that is not a row.
        """
        self.path = directory.metrics
        self.columns = [*FIXED, *names, *TIMES]
        kept = [row for row in self._read() if int(row["step"]) <= step]
        write_text_atomic(self.path, self._lines(kept, header=True))
        shutil.rmtree(directory.tensorboard, ignore_errors=True)
        for split in SPLITS:
            make_folder(directory.tensorboard / split)
        self.writers = {split: tf.summary.create_file_writer(str(directory.tensorboard / split)) for split in SPLITS}
        for row in kept:
            self._summarise(row)

    def write(
        self, step: int, split: str, values: Mapping[str, float], seconds: float, tasks_per_second: float
    ) -> None:
        """Append one row. Numbers keep nine significant digits, enough to read a float32 back exactly.

        Args:
            step: the meta-updates done so far.
            split: "train" or "val".
            values: the value of each metric.
            seconds: time of training and validation so far.
            tasks_per_second: rate of the steps or of the validation that the row sums up.
        """
        numbers = {**values, "seconds": round(seconds, 1), "tasks_per_second": round(tasks_per_second, 1)}
        row = {"step": str(step), "split": split} | {name: f"{number:.9g}" for name, number in numbers.items()}
        with naming(self.path), open(self.path, "a", encoding="utf-8", newline="") as file:
            file.write(self._lines([row]))
            file.flush()
            os.fsync(file.fileno())
        self._summarise(row)

    def flush(self) -> None:
        """Write the TensorBoard scalars to the disk."""
        for writer in self.writers.values():
            writer.flush()

    def _read(self) -> list[dict[str, str]]:
        """Return the rows of the file, without a last line that a crash cut short."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        found = lines[0].split(",") if lines else self.columns
        added = [name for name in self.columns if name in ADDED and name not in found]
        if len(found) == len({*found}) and {*found, *added} >= {*self.columns}:
            self.columns = [*found, *added]  # columns of an earlier version that wrote more stay, empty from here on
        else:
            raise RunError(f"{self.path} has other columns than this version writes: use --fresh to train again")
        rows = []
        for number, line in enumerate(lines[1:], 2):
            try:
                rows.append(self._row(line, found))
            except ValueError:
                raise RunError(
                    f"{self.path}:{number} is not a row of metrics: delete that line, or use --fresh"
                ) from None
        return rows

    def _row(self, line: str, columns: Sequence[str]) -> dict[str, str]:
        """Return a line of these columns as a row. Raises ValueError if it is not one."""
        row = dict(zip(columns, line.split(","), strict=True))
        if row["split"] not in SPLITS or int(row["step"]) < 1:
            raise ValueError(line)
        for name, text in row.items():
            if name not in FIXED and text:
                float(text)
        return row

    def _lines(self, rows: Sequence[Mapping[str, str]], header: bool = False) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def _summarise(self, row: Mapping[str, str]) -> None:
        with self.writers[row["split"]].as_default(step=int(row["step"])):
            for name, text in row.items():
                if name not in FIXED and text:
                    tf.summary.write(name, tf.constant(float(text)), metadata=SCALAR)

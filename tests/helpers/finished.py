"""The files of finished runs that are compared."""

import csv
import json
from pathlib import Path


def results(run: Path) -> dict[str, object]:
    """Return the contents of the three final files, times aside."""
    with open(run / "metrics.csv", newline="") as file:
        rows = [
            {k: v for k, v in row.items() if k not in ("seconds", "tasks_per_second")} for row in csv.DictReader(file)
        ]
    row = json.loads((run / "result.json").read_text())
    del row["seconds"], row["tasks_per_second"]
    return {"metrics": rows, "episodes": (run / "episodes.csv").read_text(), "row": row}

"""A row, and what a finished run of a planned cell leaves."""

import json

from metarun.experiments.config.load import resolved_yaml
from metarun.experiments.runs.rows import Row

ROW = {
    "experiment": "e", "algorithm": "maml", "dataset": "omniglot", "split": "test", "way": 5, "shot": 1, "query": 15,
    "protocol": "inductive", "metric": "accuracy", "mean": 0.5, "ci95": 0.01, "episodes": 600, "seed": 0,
    "checkpoint": "best", "train_steps": 10, "inner_steps": 1, "parameters": 5, "expected_calibration_error": 0.1,
    "negative_log_likelihood": 1.0, "precision": "float32", "device": "CPU", "seconds": 6.0, "tasks_per_second": 1.0,
    "version": "0", "git_commit": "", "spec_digest": "0" * 16, "episodes_digest": "1" * 16, "published": 51.0,
    "published_ci95": None, "published_source": "somewhere",
}  # fmt: skip


def leave(one, mean=0.5, values=(0.4, 0.5, 0.6), **changes):
    """Write what a finished run of a planned cell leaves."""
    one.directory.path.mkdir(parents=True, exist_ok=True)
    one.directory.spec.write_text(resolved_yaml(one.experiment))
    told = {"mean": mean, "episodes": len(values), "spec_digest": one.experiment.digest, "seed": one.seed}
    one.directory.result.write_text(json.dumps(Row(**ROW | told | changes).as_json()))
    lines = ["episode,accuracy", *(f"{number},{value}" for number, value in enumerate(values))]
    one.directory.episodes.write_text("\n".join(lines) + "\n")

"""metarun evaluate"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import examples

if TYPE_CHECKING:
    from ..datasets.tasks import Split


@click.command(
    name="evaluate",
    epilog=examples(
        "evaluate runs/omniglot-maml/seed-0 --shot 5 --episodes 1000",
        "evaluate runs/omniglot-maml/seed-0 --dataset drawings/ --convert invert",
    ),
)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--way", type=click.IntRange(1), help="Classes per task.")
@click.option("--shot", type=click.IntRange(1), help="Support images per class.")
@click.option("--query", type=click.IntRange(1), help="Query images per class.")
@click.option("--episodes", type=click.IntRange(2), help="Number of tasks.")
@click.option(
    "--episode-seed", type=click.IntRange(0, 2**31 - 1), help="Seed of the tasks. Keep it equal to compare runs."
)
@click.option("--inner-steps", type=click.IntRange(0), help="Inner gradient steps of maml and reptile.")
@click.option(
    "--protocol",
    type=click.Choice(["transductive", "inductive"]),
    help="What batch norm sees: all queries of a task together (transductive), or each query alone (inductive).",
)
@click.option(
    "--split",
    type=click.Choice(["test", "val", "train", "within-alphabet", "lake-one-shot"]),
    default="test",
    show_default=True,
    help="Split whose classes are drawn; train: new tasks drawn from the training classes. Of runs trained on "
    "Omniglot also within-alphabet: test classes, each task of one alphabet; lake-one-shot: the 400 trials of Lake et "
    "al. 2015, 20 runs of 20-way 1-shot.",
)
@click.option(
    "--checkpoint", type=click.Choice(["best", "last"]), help="best: highest validation accuracy; last: the final step."
)
@click.option(
    "--dataset",
    metavar="NAME|FOLDER|SPEC",
    help="Test on another dataset: one by name, a folder of images (all its classes, or those of its test/), or that "
    "of a spec. Its images are converted to those of the training.",
)
@click.option(
    "--convert",
    type=click.Choice(["as-is", "invert"]),
    help="With --dataset: exchange light and dark (invert) or not. Default: by the polarity of the ink, if known.",
)
@click.option(
    "--head",
    metavar="NAME|YAML",
    help="Test another head on the trained features: linear, cosine, centroid, ridge or similarity, or one with "
    "options such as '{name: centroid, features: L2N}'; null: the method's own, where the spec has `test.head`.",
)
@click.option(
    "--unknown",
    is_flag=True,
    help="How well scores tell classes outside the task: area under the ROC curve, as many classes outside as inside.",
)
@click.option(
    "--calibrated",
    is_flag=True,
    help="Divide logits by a temperature fitted on the run's validation tasks; the row has the calibration error "
    "before and after.",
)
def command(
    run: Path,
    split: Split,
    dataset: str | None,
    head: str | None,
    unknown: bool,
    calibrated: bool,
    **changes: int | str | None,
) -> None:
    """Test the trained RUN, a folder such as runs/NAME/seed-0, in another way.

    Options that are left out have the values of the run's spec. Adds a row in RUN/evaluations, never overwrites one.
    """
    from ..experiments.config.variants import dataset_named, head_named
    from ..experiments.runs.trained import retest
    from ..experiments.system.startup import import_tensorflow

    asked: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    if dataset is not None:
        asked["dataset"] = dataset_named(dataset)
    if head is not None:
        asked["head"] = head_named(head)
    if unknown and calibrated:
        raise click.UsageError("--unknown and --calibrated are two tests: give one of them")
    judged = "unknown" if unknown else "calibrated" if calibrated else ""
    retest(run, split, asked, judged)  # raises before the seconds that TensorFlow takes to import
    import_tensorflow()
    from ..experiments.errors import warn
    from ..experiments.evaluation.errors_by_group import errors_path, told
    from ..experiments.evaluation.judges import calibration_warning
    from ..experiments.evaluation.retest import evaluate
    from ..experiments.reports.table import lines_of, render
    from ..experiments.runs.rows import as_frame, merge
    from ..experiments.system.signals import StopSignal

    with StopSignal("with the tasks that are left"):
        row, path, known = evaluate(run, split, asked, judged)
    if known:
        click.echo(f"{path} has this measurement already", err=True)
    for out in {name.parent.parent for name in (run.resolve(), Path(os.path.abspath(run)))}:  # by links or not
        if (out / "results.csv").exists():
            merge(out)
    click.echo(render(lines_of(as_frame([row])), "text"))
    for line in calibration_warning(row):
        warn(line)
    if (errors := errors_path(path)).exists():
        click.echo(f"{told(errors)}\nerrors of each run and alphabet: {errors}", err=True)
    click.echo(f"row: {path}", err=True)

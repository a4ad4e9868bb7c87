"""metarun export"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from .options import examples


@click.command(
    name="export",
    epilog=examples(
        "export runs/omniglot-protonet/seed-0 model",
        "export runs/omniglot-protonet/seed-0 model --support known",
    ),
)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--support",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with a folder of images for each class, whose classifier is exported.",
)
@click.option("--invert", is_flag=True, help="Exchange light and dark of all images, inside the model too.")
@click.option(
    "--protocol",
    type=click.Choice(["inductive", "transductive"]),
    default="inductive",
    show_default=True,
    help="What batch norm sees: each image alone (inductive), or all images of a call together (transductive).",
)
@click.option(
    "--calibrated",
    is_flag=True,
    help="Divide logits by a temperature, fitted on the run's validation tasks and stored with the run.",
)
def command(
    run: Path,
    out: Path,
    support: Path | None,
    invert: bool,
    protocol: Literal["inductive", "transductive"],
    calibrated: bool,
) -> None:
    """Write the trained RUN as a TensorFlow SavedModel that runs without metarun, to the new folder OUT.

    Without --support it is the learner itself: support images, labels and queries in, probabilities out. With --support
    it is the classifier of these classes: images in, probabilities out. Of rl2 it is the policy, one step at a time.
    """
    from ..experiments.export.request import request
    from ..experiments.system.startup import import_tensorflow

    # raises before the seconds that TensorFlow takes to import
    asked = request(run, out, support, protocol, invert, calibrated)
    import_tensorflow()
    from ..experiments.evaluation.judges import temperature_in_words
    from ..experiments.export.export import export

    if asked.support:
        click.echo(asked.support.name, err=True)
    made = export(asked)
    if made.temperature is not None:
        click.echo(temperature_in_words(made.temperature), err=True)
    for name, (inputs, outputs) in made.signatures.items():
        click.echo(f"{name}: {', '.join(each.words for each in inputs)} -> {', '.join(each.words for each in outputs)}")
    click.echo(f"model card: {out / 'README.md'}", err=True)

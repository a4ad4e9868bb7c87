"""metarun predict"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click

from .options import examples, formats

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(
    name="predict",
    epilog=examples(
        "predict runs/omniglot-protonet/seed-0 --support known new --out labels.csv",
        "predict runs/omniglot-protonet/seed-0 --support known new/1.png --preview seen.png",
    ),
)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--support",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the known images: one folder per class.",
)
@click.option("--out", type=FILE, help="File of the predictions; by default they are printed.")
@formats("csv", "json")
@click.option(
    "--unknown",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="SHARE",
    help="Leave the label empty where the score is below that of this share of the support images, each left out.",
)
@click.option(
    "--calibrated",
    is_flag=True,
    help="Divide logits by a temperature, fitted on the run's validation tasks and stored with the run.",
)
@click.option("--preview", type=FILE, help="PNG file: what the network sees, beside images of the training.")
@click.option("--invert", is_flag=True, help="Exchange light and dark of all images.")
@click.option(
    "--protocol",
    type=click.Choice(["inductive", "transductive"]),
    default="inductive",
    show_default=True,
    help="What batch norm sees: each image alone, or all images of this call together.",
)
@click.option(
    "--leave-one-out",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    metavar="N",
    help="Most support images that are left out in turn to measure the support set.",
)
def command(run: Path, images: tuple[Path, ...], support: Path, **options: Any) -> None:
    """Label IMAGES (files or folders) by the trained RUN and a few images of each class.

    Says first what the support set is worth: its accuracy when each of its images is left out in turn.
    """
    from ..experiments.prediction.request import Request
    from ..experiments.system.startup import import_tensorflow

    request = Request.of(run, support, images, **options)  # raises before the seconds that TensorFlow takes to import
    import_tensorflow()
    from ..experiments.prediction.predict import predict
    from ..experiments.system.atomic import replacing
    from ..experiments.system.signals import StopSignal

    out = request.out
    with StopSignal(""), replacing(out) if out else nullcontext(sys.stdout.buffer) as file:

        def write(text: str) -> None:
            file.write(text.encode(errors="backslashreplace"))
            file.flush()

        unreadable = predict(request, write, partial(click.echo, err=True), bar=bool(out) or not sys.stdout.isatty())
    if out:
        click.echo(f"predictions: {out}", err=True)
    if unreadable:
        raise unreadable

"""metarun data"""

from __future__ import annotations

from pathlib import Path

import click

from ..datasets.images.cache import PARTS
from .options import examples


@click.group(name="data", epilog=examples("data fetch omniglot", "data import miniimagenet mini-imagenet"))
def command() -> None:
    """Fetch, import and verify datasets, and clean the cache."""


@command.command(name="list", epilog=examples("data list", "data list | grep ready"))
def list_() -> None:
    """List each dataset, and whether it is on this machine; then the copies of image folders in the cache."""
    from ..datasets.availability import overview

    for name, state in overview():
        click.echo(f"{name:<14}{state}")


@command.command(epilog=examples("data fetch omniglot", "data fetch omniglot && metarun data verify"))
@click.argument("name", type=click.Choice(["omniglot"]))
def fetch(name: str) -> None:
    """Download NAME from its public address, check it and prepare it."""
    from ..datasets.images import cache

    if cache.verify(name, cache.read(name)) == "good":
        click.echo(f"{name} is here already")
        return
    from ..experiments.system.startup import import_tensorflow

    import_tensorflow(needs_gpu=None)
    from ..datasets import omniglot
    from ..experiments.system import signals

    cache.remove(name)
    click.echo(f"downloading {name} from {omniglot.ADDRESS}", err=True)
    with signals.at_once():
        cache.load(name, lambda: omniglot.prepare(omniglot.download(omniglot.ADDRESS, omniglot.ARCHIVES)))
    click.echo(f"{name} is ready in {cache.folder()}")


@command.command(
    name="import",
    epilog=examples(
        "data import omniglot images_background.zip images_evaluation.zip", "data import miniimagenet mini-imagenet"
    ),
)
@click.argument("name", type=click.Choice(sorted(PARTS)))
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
def import_(name: str, paths: tuple[Path, ...]) -> None:
    """Prepare NAME from files that you have. Their images are checked; how they are packed does not matter.

    \b
    omniglot       images_background and images_evaluation, zips or folders, or a
                   folder that holds both; every pixel is compared.
    miniimagenet   a folder, or the parts of it, with one of
                     train, val, test: folders or tars of class folders
                     train.csv, val.csv, test.csv (Ravi) beside images/
                     mini-imagenet-cache-train.pkl, -val.pkl, -test.pkl
    """
    from ..experiments.system.startup import import_tensorflow

    import_tensorflow(needs_gpu=None)
    from ..datasets import miniimagenet, omniglot
    from ..datasets.images import cache
    from ..experiments.system import signals

    click.echo(f"preparing {name} from {', '.join(map(str, paths))}", err=True)
    with signals.at_once():
        {"omniglot": omniglot, "miniimagenet": miniimagenet}[name].import_from(paths)
    click.echo(f"{name} is ready in {cache.folder()}")


@command.command(epilog=examples("data verify", "data verify omniglot"))
@click.argument("names", nargs=-1, type=click.Choice(sorted(PARTS)), metavar="[NAME]...")
def verify(names: tuple[str, ...]) -> None:
    """Read every byte of the prepared datasets and compare it with their digests."""
    from ..datasets import ravi_split
    from ..datasets.errors import DataError
    from ..datasets.images import cache
    from ..experiments.system.progress import Progress

    parts = [part for name in names or PARTS for part in PARTS[name]]
    found = {part: cache.read(part) for part in parts}
    total = sum(len(each.images) for each in found.values() if each)
    with Progress("verify", total, unit="image") as progress:
        states = {part: cache.verify(part, each, progress.advance) for part, each in found.items()}
    splits = {part.rpartition("-")[2]: each for part, each in found.items() if each and states[part] == "good"}
    splits = {split: splits[split] for split in ravi_split.SPLITS if split in splits}
    wrong = list(ravi_split.problems(splits)) if len(splits) == len(ravi_split.SPLITS) else []
    for part, state in states.items():
        click.echo(f"{part:<20}{'wrong' if wrong and part in PARTS['miniimagenet'] else state}")
    if unknown := ravi_split.unknown_names(splits):
        click.echo(f"miniimagenet: {unknown}")
    if damaged := [part for part, state in states.items() if state == "damaged"]:
        raise DataError(f"{', '.join(damaged)}: damaged in {cache.folder()}; import or fetch again")
    if wrong:
        raise DataError(
            f"miniimagenet is not in the split of Ravi and Larochelle ({'; '.join(wrong)}): import it again"
        )


@command.command(epilog=examples("data clean --dry-run", "data clean --yes"))
@click.option("--dry-run", is_flag=True, help="List what would be removed; remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(dry_run: bool, yes: bool) -> None:
    """Remove from the cache what nothing reads any more, after a question.

    These are copies of image folders that have changed since or are gone, letters that another version drew, and files
    of processes that were killed. What a running process reads or prepares is left. Folders of images are not touched.
    """
    from ..datasets.availability import megabytes
    from ..datasets.images import cache, leftovers

    found = list(leftovers.stale())
    for each in found:
        click.echo(f"{megabytes(each.size):>12}  {each.what}: {each.reason}")
    if not found:
        click.echo(f"nothing in {cache.folder()} is stale")
        return
    everything = f"{megabytes(sum(each.size for each in found))} in {cache.folder()}"
    if dry_run:
        click.echo(f"{everything} would be removed")
        return
    if not yes:
        click.confirm(f"remove {everything}?", abort=True)
    left = [each for each in found if not leftovers.discard(each)]
    for each in left:
        click.echo(f"left, for a process uses it, or it is another user's: {each.what}")
    click.echo(f"removed {megabytes(sum(each.size for each in found if each not in left))}")

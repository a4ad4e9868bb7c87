"""metarun data"""

from __future__ import annotations

from pathlib import Path

import click

from ..datasets.images.cache import BY_SPLIT, FETCHED, PARTS
from .options import examples


@click.group(name="data", epilog=examples("data fetch omniglot", "data import miniimagenet mini-imagenet"))
def command() -> None:
    """Fetch, import and verify datasets, and clean the cache."""


@command.command(name="list", epilog=examples("data list", "data list | grep ready"))
def list_() -> None:
    """List each dataset, and whether it is on this machine; then the copies of image folders in the cache."""
    from ..datasets.availability import overview

    for name, state in overview():
        click.echo(f"{name:<16}{state}")


@command.command(epilog=examples("data fetch omniglot", "data fetch cifar-fs && metarun data verify"))
@click.argument("name", type=click.Choice(FETCHED))
def fetch(name: str) -> None:
    """Download NAME from its public address, check it and prepare it."""
    from ..datasets import availability
    from ..datasets.images import cache

    if all(cache.verify(part, cache.read(part)) == "good" for part in PARTS[name]):
        click.echo(f"{name} is here already")
        return
    from ..experiments.system import signals

    click.echo(f"downloading {name} from {availability.address_of(name)}", err=True)
    with signals.at_once():
        availability.fetch(name)
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
    lake-one-shot  all_runs.zip, or a folder with its content; every pixel and
                   label is compared.
    miniimagenet   folders train, val, test of class folders, or 100 class folders
                   by WordNet number; Ravi's train.csv, val.csv, test.csv beside
                   images/; pickles with train, val, test in their names; or
                   archives of these
    cifar-fs       cifar-100-python.tar.gz, cifar-100-binary.tar.gz, 100 class
    fc100          folders, or CIFAR_FS_train.pickle (FC100_...), -val, -test
    cub            CUB_200_2011.tgz, or its folder
    emnist         gzip.zip of NIST, or its files emnist-byclass-*
    tieredimagenet tiered-imagenet.tar or its pickles, or train_images.npz and
                   train_labels.pkl, the same for val and test

    PATH is an archive, a folder, or several parts of it.
    """
    from ..datasets import availability
    from ..datasets.images import cache
    from ..experiments.system import signals

    click.echo(f"preparing {name} from {', '.join(map(str, paths))}", err=True)
    with signals.at_once():
        availability.import_from(name, paths)
    click.echo(f"{name} is ready in {cache.folder()}")


@command.command(epilog=examples("data verify", "data verify omniglot"))
@click.argument("names", nargs=-1, type=click.Choice(sorted(PARTS)), metavar="[NAME]...")
def verify(names: tuple[str, ...]) -> None:
    """Read every byte of the prepared datasets and compare it with their digests."""
    from ..datasets.errors import DataError
    from ..datasets.images import cache, published
    from ..experiments.system.progress import Progress

    parts = [part for name in names or PARTS for part in PARTS[name]]
    found = {part: cache.read(part) for part in parts}
    total = sum(len(each.images) for each in found.values() if each)
    with Progress("verify", total, unit="image") as progress:
        states = {part: cache.verify(part, each, progress.advance) for part, each in found.items()}
    good = [name for name in names or PARTS if all(states[part] == "good" for part in PARTS[name])]
    wrong = {name: published.problems(name) for name in good if name in BY_SPLIT}
    wrong = {name: problems for name, problems in wrong.items() if problems}
    for name in names or PARTS:
        for part in PARTS[name]:
            click.echo(f"{part:<22}{'wrong' if name in wrong else states[part]}")
    for name in good:
        if name in BY_SPLIT and (unknown := published.unknown_names(name)):
            click.echo(f"{name}: {unknown}")
    if damaged := [part for part, state in states.items() if state == "damaged"]:
        raise DataError(f"{', '.join(damaged)}: damaged in {cache.folder()}; import or fetch again")
    if wrong:
        told = "; ".join(
            f"{name} is not {published.layout_of(name).title} ({'; '.join(each)})" for name, each in wrong.items()
        )
        raise DataError(f"{told}: import again")


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

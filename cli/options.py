"""Options that several verbs share."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

overrides = click.option(
    "-s", "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value of the spec; repeatable."
)


def out_folder(text: str) -> Callable[[Any], Any]:
    """Return a decorator that adds --out, the folder of the runs, with this help."""
    kind = click.Path(file_okay=False, path_type=Path)
    return click.option("--out", type=kind, default=Path("runs"), show_default=True, help=text)


def formats(*names: str) -> Callable[[Any], Any]:
    """Return a decorator that adds --format as `form`: one of the names, by default the first."""
    return click.option("--format", "form", type=click.Choice(names), default=names[0], show_default=True)


def quoted(path: Path) -> str:
    """Return a path as it is typed in a shell, for a command in a message. It is not taken for an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def examples(*lines: str) -> str:
    """Return the end of a `--help`: commands that can be copied, without the name `metarun`."""
    return "\n".join(["\b", "Examples:", *(f"  metarun {line}" for line in lines)])


def typed(*more: str, verb: str = "", without: Collection[str] = ()) -> str:
    """Return the command line of this process, changed, for a message that says what to type instead.

    Args:
        more: words to add at the end.
        verb: the verb to use instead of this command's own.
        without: options to leave out, with their values.
    """
    context = click.get_current_context()
    flags = {name for each in context.command.params if getattr(each, "is_flag", False) for name in each.opts}
    kept, words = [], iter(sys.argv[1:])
    for word in words:
        name, equals, _ = word.partition("=")
        if name not in without:
            kept.append(word)
        elif not equals and name not in flags:
            next(words, None)
    if verb:
        kept[kept.index(context.info_name or "")] = verb
    return shlex.join(["metarun", *kept, *more])


class Seeds(click.ParamType):
    """Parse seeds such as 3, 0-4 or 0,2,5 into a list."""

    name = "seeds"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Return the seeds of an option's value; anything else is bad usage."""
        from ..experiments.runs.sweep import parse_seeds

        try:
            return parse_seeds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _in_one_list(ctx: click.Context, parameter: click.Parameter, value: Sequence[Sequence[int]]) -> list[int]:
    return list(dict.fromkeys(seed for some in value for seed in some))


seeds = click.option(
    "--seeds",
    "--seed",
    "seeds",
    type=Seeds(),
    multiple=True,
    callback=_in_one_list,
    metavar="0-4",
    help="Train these seeds, not those of the spec: 3, 0-4 or 0,2,5; repeatable.",
)


def selection(command: Any) -> Any:
    """Add --select, --random as `draws` and --halving: choose among values by validation."""
    added = [
        click.option(
            "--select",
            is_flag=True,
            help="Train all combinations of -s KEY=A,B,C with one seed and without tests, choose one by validation, "
            "train it with all seeds and test it alone.",
        ),
        click.option(
            "--random",
            "draws",
            type=click.IntRange(2, 10_000),
            metavar="N",
            help="With --select: draw N configurations from lists and ranges, -s KEY=log:LOW:HIGH, uniform:LOW:HIGH or "
            "int:LOW:HIGH. A larger N keeps those of a smaller one.",
        ),
        click.option(
            "--halving",
            is_flag=True,
            help="With --select: train all for a part of the steps, then the better half for twice as many, and so on.",
        ),
    ]
    for option in reversed(added):
        command = option(command)
    return command


def _go_offline(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        os.environ["METARUN_OFFLINE"] = "1"


offline = click.option(
    "--offline",
    is_flag=True,
    expose_value=False,
    callback=_go_offline,
    help="Download nothing: fail at once if data are not in the cache. METARUN_OFFLINE=1 does the same.",
)


def _only_given(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Keep an option in ctx.params only if the command line has it."""
    if value is not None and value != ():
        ctx.params[parameter.name or ""] = value
    return value


def _pairs(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    given = {}
    for each in value:
        key, equals, text = each.partition("=")
        if not key:
            raise click.BadParameter(f"expected KEY=VALUE, got {each!r}", ctx, parameter)
        given[key.removeprefix("--")] = text if equals else True
    if given:
        ctx.params["slurm"] = given


def cluster_options(executor: str | None) -> Callable[[Any], Any]:
    """Return a decorator that adds --executor, and the settings of a cluster that the command line may override."""
    setting = partial(click.option, expose_value=False, callback=_only_given)
    settings = [
        setting("--partition", help="Partition in which the jobs wait; default: the cluster's own."),
        setting("--gpus", type=int, help="GPUs of each run."),
        setting(
            "--runs-per-gpu",
            type=click.IntRange(1, 64),
            help="With --executor local --gpus 1: runs that share a GPU; small ones fill a large card together.",
        ),
        setting(
            "--workers",
            type=int,
            help="Processes that train a run together; default: one per GPU.",
        ),
        setting("--cpus", type=int, help="Cores of each worker."),
        setting("--memory", help="Memory on each node, for example 8G."),
        setting(
            "--time",
            help="Time limit of a job, H:MM:SS: 4:00 is four minutes, 4:00:00 four hours. A run that needs longer is "
            "requeued and resumed.",
        ),
        setting("--account", help="Account that is charged."),
        setting("--max-parallel", type=int, help="Runs at the same time; default: no limit."),
        click.option(
            "--slurm",
            multiple=True,
            expose_value=False,
            callback=_pairs,
            metavar="KEY=VALUE",
            help="Another option of sbatch, by its long name; repeatable.",
        ),
        click.option(
            "--executor",
            type=click.Choice(["slurm", "local"]),
            default=executor,
            show_default=True,
            help="Where to train: on a Slurm cluster, or in parallel processes of this machine.",
        ),
    ]

    def decorated(command: Any) -> Any:
        for option in settings:
            command = option(command)
        return command

    return decorated

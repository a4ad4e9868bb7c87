"""Options that several verbs share."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import click

overrides = click.option(
    "-s", "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value of the spec; repeatable."
)


def examples(*lines: str) -> str:
    """Return the end of a `--help`: commands that can be copied, without the name `metarun`."""
    return "\n".join(["\b", "Examples:", *(f"  metarun {line}" for line in lines)])


def typed(*more: str, verb: str = "", without: Collection[str] = ()) -> str:
    """Return the command line of this process, for a message that says what to type instead.

    Args:
        more: words that are added at the end.
        verb: in place of the verb of this command.
        without: options that are left out, with their values.
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
    """Seeds such as 3, 0-4 or 0,2,5, as a list."""

    name = "seeds"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
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


def _go_offline(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        os.environ["METARUN_OFFLINE"] = "1"


offline = click.option(
    "--offline",
    is_flag=True,
    expose_value=False,
    callback=_go_offline,
    help="Download nothing: fail at once where data are not in the cache. Or set METARUN_OFFLINE.",
)


def _only_told(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Keep an option in ctx.params only where the command line has it."""
    if value is not None and value != ():
        ctx.params[parameter.name or ""] = value
    return value


def _pairs(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    told = {}
    for each in value:
        key, equals, text = each.partition("=")
        if not key:
            raise click.BadParameter(f"expected KEY=VALUE, got {each!r}", ctx, parameter)
        told[key.removeprefix("--")] = text if equals else True
    if told:
        ctx.params["slurm"] = told


def cluster_options(executor: str | None) -> Callable[[Any], Any]:
    """Where runs go, and what the cluster is asked for: `executor`, and those settings that are told."""
    setting = partial(click.option, expose_value=False, callback=_only_told)
    told = [
        setting("--partition", help="Where jobs queue."),
        setting("--gpus", type=int, help="GPUs of each run."),
        setting(
            "--workers",
            type=int,
            help="Processes that train a run together; default: one for each of its GPUs.",
        ),
        setting("--cpus", type=int, help="Cores of each worker."),
        setting("--memory", help="On each node, for example 8G."),
        setting("--time", help="Limit of a job: H:MM:SS. A run that needs longer is requeued and goes on."),
        setting("--account", help="Account that is charged."),
        setting("--max-parallel", type=int, help="Runs at a time."),
        click.option(
            "--slurm",
            multiple=True,
            expose_value=False,
            callback=_pairs,
            metavar="KEY=VALUE",
            help="Any option of sbatch by its long name; repeatable.",
        ),
        click.option(
            "--executor",
            type=click.Choice(["slurm", "local"]),
            default=executor,
            show_default=True,
            help="A Slurm cluster, or parallel processes of this machine.",
        ),
    ]

    def decorated(command: Any) -> Any:
        for option in told:
            command = option(command)
        return command

    return decorated

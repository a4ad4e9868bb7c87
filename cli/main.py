"""The command `metarun`: its verbs, imported when they are called, and the exit codes of errors."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Any

import click

from ..datasets.errors import KnownError
from ..experiments.errors import Interrupted, suggest
from ..experiments.system import signals, streams
from ..experiments.system.startup import ignore_settings_of_libraries
from .errors import report
from .options import examples

COMMANDS = {  # verb -> module, short help
    "train": ("train", "Train and test an experiment; resume where it stopped."),
    "submit": ("submit", "Train a sweep on a cluster, or in parallel on this machine."),
    "status": ("status", "Print one line per run: waiting, running, finished or failed, and why."),
    "cancel": ("cancel", "Stop the jobs of runs; they are resumed when submitted again."),
    "logs": ("logs", "Print what the last job of a run printed."),
    "evaluate": ("evaluate", "Test a trained run in another way; adds a row."),
    "verify": ("verify", "Test some episodes of a run again, and compare with what it says."),
    "pack": ("pack", "Pack a finished run into one file."),
    "unpack": ("unpack", "Unpack a file of `pack` into a folder of runs."),
    "predict": ("predict", "Classify your own images with a trained run and a few examples."),
    "export": ("export", "Write a trained run as a SavedModel that runs without metarun."),
    "benchmark": ("benchmark", "Measure how fast an experiment trains on this machine."),
    "reproduce": ("reproduce", "Fill a paper's table: run what is missing, print it with verdicts."),
    "compare": ("compare", "Compare runs on identical episodes by a paired test."),
    "plot": ("plot", "Draw figures of runs: learning, adaptation, reliability, single tasks."),
    "report": ("report", "Write one HTML page of runs: tables, figures, specs, machines."),
    "table": ("table", "Print the results of runs as a table."),
    "validate": ("validate", "Check specs without running them."),
    "show": ("show", "Print a spec resolved, with where each value came from."),
    "list": ("listing", "List algorithms, datasets, or the specs and tables that ship."),
    "describe": ("describe", "Explain every key, algorithm, network and dataset of a spec."),
    "schema": ("schema", "Print the JSON Schema of specs, for editors."),
    "data": ("data", "Fetch, import and verify datasets."),
    "check-plugin": ("check_plugin", "Check an algorithm, network or dataset of another package."),
    "doctor": ("doctor", "Print what this machine has, and what cannot be used."),
}
# verbs that only print, and end without a reader; the others go on
PRINTING = ("status", "logs", "predict", "compare", "table", "validate", "show", "list", "describe", "schema", "doctor")
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_VERBOSITY": "ERROR", "TF_CPP_MAX_VLOG_LEVEL": "0"}


class LazyGroup(click.Group):
    """Import a verb's module when that verb is called, so that `--help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of `--help`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a verb and return its command; None if there is no such verb."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f".{COMMANDS[cmd_name][0]}", __package__)
        return module.command

    def invoke(self, ctx: click.Context) -> Any:
        """Call the verb. A signal stops it at once, until it imports TensorFlow."""
        try:
            with signals.at_once():
                return super().invoke(ctx)
        except KeyboardInterrupt:  # click would print an empty line
            raise Interrupted(signals.stopped() or "interrupted") from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs and their short help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, help_text) for verb, (_, help_text) in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]):
        """Return the verb that is called; an unknown one is an error that suggests the nearest."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = suggest(args[0], COMMANDS, f"the commands are {', '.join(COMMANDS)}")
            ctx.fail(f"no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples("train quickstart/protonet", "show quickstart/maml > my.yaml"),
)
@click.version_option(version("metarun"), prog_name="metarun")
@click.option("-v", "--verbose", is_flag=True, help="Show TensorFlow's messages, and tracebacks of errors.")
def metarun(verbose: bool) -> None:
    """Run meta-learning experiments from YAML specs, and print their results as tables."""
    if not verbose:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)


def main() -> None:
    """Run the command line and exit.

    Exit codes: 0 done, 1 failure, 2 bad usage or spec, 130 stopped by a signal.
    """
    streams.open_closed()
    signals.begin()
    ignore_settings_of_libraries()
    verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if verb in COMMANDS and verb not in PRINTING:
        streams.drop_what_cannot_be_written()
    else:
        streams.end_without_reader()
    code = _run()
    if not code and (stopped := signals.stopped()):  # in the last moments
        click.echo(stopped, err=True)
        code = Interrupted.code
    sys.exit(code)


def _run() -> int:
    """Run the command line, print its error if there is one, and return the exit code."""
    try:
        return metarun.main(standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except (KeyboardInterrupt, click.Abort):
        click.echo(signals.stopped() or "interrupted", err=True)
        return Interrupted.code
    except Exception as error:
        if not isinstance(error, KnownError) and (stopped := signals.stopped()):  # which broke what was going on
            error = Interrupted(stopped)
        return report(error)


if __name__ == "__main__":
    main()

"""The command line, by running it: quick verbs, exit codes, one clear line for whatever a user gets wrong."""

import json
import os
import platform
import re
import subprocess
import sys

import pytest
import yaml
from command import metarun
from rows import ROW

from metarun.cli.main import COMMANDS
from metarun.experiments.config.load import load, resolved_yaml
from metarun.experiments.errors import SpecError
from metarun.experiments.jobs.settings import settled, user_file
from metarun.experiments.runs.trained import retest
from metarun.experiments.system import startup
from metarun.experiments.system.startup import fast_kernels, one_after_another

QUICK = [
    ["--help"],
    ["--version"],
    *([verb, "--help"] for verb in COMMANDS),
    ["list", "algorithms"],
    ["list", "datasets"],
    ["list", "specs"],
    ["list", "tables"],
    ["validate", "quickstart/protonet", "omniglot/maml", "finn2017-omniglot"],
    ["show", "omniglot/maml", "-s", "train.steps=5"],
    ["describe"],
    ["describe", "algorithm.inner_lr"],
    ["schema"],
    ["data", "list"],
]


def test_quick_verbs_never_import_what_is_slow(tmp_path):
    """Make what is slow impossible to import, in one interpreter; figures and data need NumPy, tables pandas too."""
    program = """
import json, sys
for name in sys.argv[2].split():
    sys.modules[name] = None
from metarun.cli.main import metarun
for arguments in json.loads(sys.argv[1]):
    try:
        metarun.main(arguments, standalone_mode=False)
    except SystemExit as leave:
        assert not leave.code, arguments
"""

    def run(verbs, forbidden):
        command = [sys.executable, "-c", program, json.dumps(verbs), forbidden]
        return subprocess.run(command, capture_output=True, text=True)

    (tmp_path / "result.json").write_text(json.dumps(ROW))
    tables = [["table", str(tmp_path)], ["table", str(tmp_path), "--format", "latex"]]
    heavy = "tensorflow keras torch"
    slow = f"{heavy} pandas tabulate jinja2 matplotlib"
    without_data = [verb for verb in QUICK if verb[0] not in ("validate", "data", "plot")]
    for verbs, forbidden in ((QUICK, slow), (without_data, f"{slow} numpy"), (tables, heavy)):
        done = run(verbs, forbidden)
        assert done.returncode == 0, done.stderr
    for verbs, name in (([["train", "quickstart/protonet"]], "tensorflow"), (tables, "pandas")):
        wrong = run(verbs, name)
        assert wrong.returncode != 0 and name in wrong.stderr  # these do import it: the test can fail


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="oneDNN is for x86")
def test_onednn_is_on_whatever_the_processor_unless_it_is_told_off(monkeypatch):
    program = """if True:
        import gc, sys
        from metarun.experiments.system.startup import import_tensorflow
        import_tensorflow()
        assert gc.isenabled() and "keras" in sys.modules and "matplotlib" not in sys.modules
        import matplotlib.pyplot  # is hidden from Keras, not from what draws later
    """
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "0"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "oneDNN custom operations are on" in done.stderr, done.stderr
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert not fast_kernels()


def test_operations_of_a_program_run_one_after_another_unless_the_user_says_otherwise(monkeypatch):
    """Reject a flag that replaces the user's, and one for a TensorFlow that may not know it."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    flag = "--xla_cpu_enable_concurrency_optimized_scheduler"
    assert one_after_another() == {"XLA_FLAGS": f"--xla_cpu_enable_fast_math=false {flag}=false"}
    monkeypatch.setenv("XLA_FLAGS", f"{flag}=true")
    assert not one_after_another()
    monkeypatch.delenv("XLA_FLAGS")
    assert one_after_another() == {"XLA_FLAGS": f"{flag}=false"}
    monkeypatch.setattr(startup, "installed_version", lambda _: "2.20.0")
    assert not one_after_another()


def test_help_names_every_verb_and_hints_at_mistyped_ones():
    text = metarun("--help").stdout
    assert all(f"  {verb} " in text for verb in COMMANDS)
    assert "did you mean train?" in metarun("trian", code=2).stderr
    assert "the commands are train" in metarun("xyzzy", code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "nothing.yaml"], 2, "nothing.yaml: no such file"),
        (["train"], 2, "Missing argument 'SPEC...'"),
        (["train", "quickstart/maml", "-s", "train.stesp=1"], 2, "did you mean steps?"),
        (["train", "quickstart/maml", "--seed", "-1"], 2, "--seed"),
        (["train", "quickstart/maml", "quickstart/maml"], 2, "quickstart/maml is given twice: leave one out"),
        (["validate", "quickstart/maml", "nothing.yaml"], 2, "no such file"),
        (["show", "nothing"], 2, "no such file"),
        (["describe", "mamal"], 2, "maml"),
        (["list", "things"], 2, "algorithms"),
        (["table", "no-such-folder"], 2, "no-such-folder"),
        (["evaluate", "no-such-folder"], 2, "no-such-folder"),
        (["reproduce", "duan2016-bandit"], 2, "did you mean duan2016-bandits?"),
        (["reproduce", "duan2016-mdps", "--cells", "x*"], 2, "no cell has such a name; the cells are n10-random"),
        (["reproduce", "duan2016-mdps", "--budget", "0"], 2, "--budget"),
        (["compare", "no-such-folder", "other"], 2, "no-such-folder"),
        (["data", "import", "omniglot"], 2, "Missing argument"),
        (["data", "import", "imagenet", "x"], 2, "imagenet"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, code, words):
    assert words in metarun(*arguments, code=code).stderr


def test_an_empty_folder_has_no_table(tmp_path):
    assert "no finished run below" in metarun("table", tmp_path, code=1).stderr
    (tmp_path / "result.json").write_text('{"experiment": "foreign"}')
    done = metarun("table", tmp_path, code=1)
    assert "not a row that this version wrote" in done.stderr


def test_evaluate_needs_a_finished_run(tmp_path):
    assert "finished" in metarun("evaluate", tmp_path, code=1).stderr


def test_evaluate_refuses_a_spec_that_was_edited_after_the_training(tmp_path):
    """Reject a row that tells of other classes under the name of this training."""
    spec = load("omniglot/protonet").experiment
    (tmp_path / "spec.yaml").write_text(resolved_yaml(spec))
    (tmp_path / "result.json").write_text(json.dumps(ROW | {"spec_digest": spec.digest}))
    assert retest(tmp_path, "test", {"shot": 5}).experiment.test.shot == 5
    edited = resolved_yaml(spec).replace("split: vinyals", "split: random-1100-100-423")
    (tmp_path / "spec.yaml").write_text(edited)
    assert "is not the spec that the run was trained with" in metarun("evaluate", tmp_path, code=1).stderr


def test_show_is_yaml_and_says_where_values_come_from():
    shown = metarun("show", "omniglot/maml", "-s", "train.steps=5").stdout
    told = yaml.safe_load(shown)
    assert told["train"]["steps"] == 5 and told["algorithm"]["inner_lr"] == 2.0
    origin = {line.split(":")[0].strip(): line.split("# ")[-1] for line in shown.splitlines() if "# " in line}
    assert origin["steps"] == "command line" and origin["log_every"] == "default"
    assert origin["inner_lr"].startswith("maml.yaml:")
    nested = metarun("show", "omniglot/maml", "-s", "cluster.slurm.qos=low").stdout
    assert re.search(r"qos: low +# command line", nested)


def test_names_that_are_no_text_are_shown(tmp_path):
    name = os.fsdecode(b"x\xff.yaml")
    (tmp_path / name).write_text("name: 1\n")
    done = metarun("validate", tmp_path / name, code=2, PYTHONIOENCODING="utf-8:strict")
    assert r"x\udcff.yaml" in done.stdout + done.stderr and "internal" not in done.stderr


def test_a_user_without_a_home_has_no_settings(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", str)  # as where the password file does not know the user
    monkeypatch.delenv("METARUN_CLUSTER", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert user_file() is None and settled(None, {}).cpus == 1
    monkeypatch.setenv("METARUN_CLUSTER", "~nobody-of-this-name/x.yaml")
    with pytest.raises(SpecError, match="METARUN_CLUSTER: there is no file ~nobody-of-this-name"):
        settled(None, {})


def test_train_refuses_a_sweep_and_shows_the_command_for_it():
    """Reject a command with options that submit does not have, and a value in quotes taken for a sweep."""
    told = metarun("train", "quickstart/maml", "-s", "train.steps=1,2", "--offline", "--seed", "3", code=2).stderr
    sweep = "metarun submit quickstart/maml -s train.steps=1,2 --seed 3 --executor local\n"
    assert told.startswith("-s train.steps=1,2: train takes one value") and told.endswith(f"to sweep: {sweep}")
    told = metarun("train", "quickstart/maml", "-s", 'train.steps="1,2"', code=2).stderr
    assert told == "command line: train.steps: expected a whole number, got '1,2'\n"


def test_schema_is_json_schema():
    schema = json.loads(metarun("schema").stdout)
    assert schema["$schema"].startswith("https://json-schema.org/") and "algorithm" in schema["else"]["required"]


def test_errors_know_their_exit_code():
    """Reject the name of a class decides, so that a subclass or another class of that name is told otherwise."""
    from metarun.datasets.errors import DataError
    from metarun.experiments.errors import Interrupted, InUse, SpecError
    from metarun.experiments.system.failures import explain

    class Wrong(SpecError):
        pass

    assert explain(Wrong(["spec.yaml:1: a", "spec.yaml:2: b"])) == ("spec.yaml:1: a\nspec.yaml:2: b", 2)
    assert explain(Interrupted("stopped")) == ("stopped", 130)
    assert explain(InUse("held")) == ("error: held", 1)
    assert explain(DataError("no data")) == ("error: no data", 1)
    other = type("SpecError", (Exception,), {})
    assert explain(other("?")) == ("internal error, please report it: SpecError: ? (`metarun -v` shows where)", 1)


def test_a_full_disk_is_not_out_of_memory():
    """Check that TensorFlow's writers and Python's raise different errors."""
    import errno

    from tensorflow.errors import ResourceExhaustedError

    from metarun.cli.errors import explain

    text = "{{function_node f}} runs/a b/events.out; No space left on device\n\tFailed to flush 3 events [Op:Flush]"
    where = "on the disk, or in its quota (runs/a b/events.out)"
    told = f"error: no space left {where}: free some room, then run the same command"
    assert explain(ResourceExhaustedError(None, None, text)) == (told, 1)
    assert explain(OSError(errno.ENOSPC, "No space left on device", "runs/a b/events.out")) == (told, 1)
    quota = text.replace("No space left on device", "Disk quota exceeded")
    assert explain(ResourceExhaustedError(None, None, quota)) == (told, 1)
    assert explain(OSError(errno.EDQUOT, "Disk quota exceeded", "runs/a b/events.out")) == (told, 1)
    assert explain(OSError(errno.EIO, "Input/output error")) == ("error: Input/output error", 1)
    assert "out of memory" in explain(ResourceExhaustedError(None, None, "OOM when allocating tensor"))[0]


def test_mistakes_of_two_files_of_one_name_are_told_apart(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "s.yaml").write_text("nmae: x\n")
    both = [str(tmp_path / folder / "s.yaml") for folder in ("a", "b")]
    for verb in ("validate", "train", "submit"):
        told = metarun(verb, *both, "-s", "train.steps=x", code=2).stderr
        for spec in both:
            assert f"{spec}: s.yaml:1: nmae: unknown key" in told and f"{spec}: command line: train.steps" in told
    assert metarun("validate", both[0], code=2).stderr.startswith("s.yaml:1: name: is missing")


def test_a_run_that_began_again_goes_on_without_fresh(monkeypatch, capsys):
    """Reject the words of a run without --fresh, whose command would throw away what was done."""
    from metarun.cli.errors import report
    from metarun.experiments.errors import Interrupted

    stopped = Interrupted("stopped after step 5 of 9; the same command resumes from there")
    for arguments, told in (
        ([], str(stopped)),
        (["--fresh"], str(stopped).replace("command", "command without --fresh")),
    ):
        monkeypatch.setattr("sys.argv", ["metarun", "train", "spec.yaml", *arguments])
        assert report(stopped) == 130 and capsys.readouterr().err == told + "\n"


def test_runs_that_were_not_begun_are_named(tmp_path, monkeypatch):
    """Name them, since the same command without --fresh would skip those that are finished."""
    from click.testing import CliRunner

    from metarun.cli.main import metarun as commands
    from metarun.experiments.errors import Interrupted

    def stopped(*_):
        raise Interrupted("stopped after step 3 of 9")

    monkeypatch.setattr("metarun.experiments.training.session.train", stopped)
    command = ["train", "quickstart/maml", "--seed", "0", "--seed", "1", "--out", str(tmp_path)]
    told = CliRunner().invoke(commands, [*command, "--fresh"]).stderr
    assert f"not started yet, so give these --fresh again: {tmp_path / 'quickstart-maml/seed-1'}" in told
    assert "not started yet" not in CliRunner().invoke(commands, command).stderr


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m metarun.cli.main schema | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


def test_data_that_are_missing_say_how_to_get_them(tmp_path):
    done = metarun("data", "list", METARUN_CACHE=str(tmp_path))
    assert "miniimagenet    not here: `metarun data import` miniimagenet" in done.stdout
    assert "absent" in metarun("data", "verify", METARUN_CACHE=str(tmp_path)).stdout
    (tmp_path / "omniglot.json").write_text("{")
    assert metarun("data", "verify", "omniglot", code=1, METARUN_CACHE=str(tmp_path)).stderr.count("warning") == 1
    missing = metarun("data", "import", "miniimagenet", tmp_path / "nothing", code=1, METARUN_CACHE=str(tmp_path))
    assert missing.stderr.endswith(f"\nerror: {tmp_path / 'nothing'} does not exist\n")
    assert missing.stderr.startswith("preparing miniimagenet from ")  # in a batch log there is no bar


@pytest.mark.parametrize(
    ("arguments", "bound"),
    [
        ("plot . --kind training --episode 99999999999999999999", "0<=x<=2147483647"),
        ("validate quickstart/maml -s train.steps=99999999999999999999", "expected a number at most 1000000000"),
        (
            "validate quickstart/maml -s optimizer.schedule=step -s optimizer.decay_steps=[99999999999999999999]",
            "expected a number at most 1000000000",
        ),
    ],
)
def test_numbers_beyond_64_bits_are_refused_in_one_line(arguments, bound):
    """Reject an internal error, where they meet a tensor."""
    from click.testing import CliRunner

    from metarun.cli.main import metarun as commands

    done = CliRunner().invoke(commands, arguments.split())
    assert done.exit_code and bound in f"{done.output} {done.exception}"

"""A run in one file: what travels, what does not, and files of strangers."""

import io
import json
import os

import numpy as np
import pytest
from click.testing import CliRunner
from rows import ROW, leave

from metarun.cli.main import metarun as group
from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.runs import archive, checkpoint
from metarun.experiments.runs.archive import pack, unpack
from metarun.experiments.runs.directory import PACKED
from metarun.experiments.runs.rows import find_rows, read_row
from metarun.experiments.runs.run import Run
from metarun.experiments.runs.trained import labels
from metarun.experiments.runs.weights import weights_of
from metarun.experiments.system import archives

SPEC = """
name: few
algorithm: {name: protonet}
network: {name: mlp, hidden: [4]}
dataset: {name: imagefolder, path: images}
protocol: inductive
train: {way: 3, shot: 1, query: 2, steps: 2}
test: {way: 2, shot: 1, query: 2, episodes: 3}
"""


@pytest.fixture
def run(tmp_path):
    """Write a finished run with a checkpoint, as a training does, without one."""
    (tmp_path / "few.yaml").write_text(SPEC)
    one = Run.at(tmp_path / "runs", load(tmp_path / "few.yaml").experiment, 0)
    leave(one, experiment="few", algorithm="protonet", dataset="imagefolder", way=2, query=2, train_steps=2)
    one.write_spec()
    checkpoint.save(one.directory.best, [np.arange(6.0)], labels(one.experiment) | {"step": 2})
    checkpoint.save(one.directory.checkpoint(2), [np.arange(7.0)], labels(one.experiment) | {"step": 2})
    one.directory.environment.write_text("[]\n")
    return one.directory


def members_of(file):
    return archives.read(file, PACKED)


def written(file, members, **changes):
    """Write an archive with other members: bytes, or None for a member that is left out."""
    changed = {name: data for name, data in (members | changes).items() if data is not None}
    archives.write(file, changed, {})
    return file


def test_what_travels_arrives(run, tmp_path):
    """Reject an archive with the last checkpoint in place of the tested one, and one whose bytes hang on the time."""
    run.inputs.write_text("{}")
    notes = pack(run.path, tmp_path / "one.zip")
    os.utime(run.best, (0, 0))
    pack(run.path, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    there, same = unpack(tmp_path / "one.zip", tmp_path / "there")
    assert there.path == tmp_path / "there" / "few" / "seed-0" and notes == same
    names = {"spec.yaml", "environment.json", "inputs.json", "episodes.csv", "result.json", "checkpoints/best.npz"}
    found = {path.relative_to(there.path).as_posix() for path in there.path.rglob("*") if path.is_file()}
    assert found == names
    assert all((there.path / name).read_bytes() == (run.path / name).read_bytes() for name in names)
    assert [note.partition(" does")[0] for note in notes] == [f"dataset.path {tmp_path / 'images'}"]
    assert weights_of(tmp_path / "one.zip").digest == weights_of(run.path).digest == weights_of(there.path).digest


def test_further_tests_travel_if_they_are_small(run, tmp_path, monkeypatch):
    run.evaluations.mkdir()
    for name in ("small", "large"):
        (run.evaluations / f"{name}.json").write_text(run.result.read_text())
        (run.evaluations / f"{name}.csv").write_text("episode\n" * (1000 if name == "large" else 1))
    monkeypatch.setattr(archive, "SMALL", 5000)
    notes = pack(run.path, tmp_path / "one.zip")
    assert [note for note in notes if "evaluations" in note] == [
        f"{run.evaluations / 'large.json'} is left out: it has more than 0 MB"
    ]
    assert {name for name in members_of(tmp_path / "one.zip") if "eval" in name} == {
        "evaluations/small.json",
        "evaluations/small.csv",
    }


def test_a_further_test_on_the_dataset_of_another_package_travels(run, tmp_path):
    """Reject a wrong reason to leave one out: its name is in that of the file, see `Experiment.elsewhere`."""
    run.evaluations.mkdir()
    for name in ("test-on-My_letters.v2-best", "test-on-été-best"):
        (run.evaluations / f"{name}.json").write_text(run.result.read_text())
    notes = pack(run.path, tmp_path / "one.zip")
    assert [note.partition(": ")[2][:8] for note in notes if "evaluations" in note] == ["its name"]
    there, _ = unpack(tmp_path / "one.zip", tmp_path / "there")
    assert [path.name for path in there.evaluations.iterdir()] == ["test-on-My_letters.v2-best.json"]


def test_nothing_is_overwritten(run, tmp_path):
    pack(run.path, tmp_path / "one.zip")
    with pytest.raises(RunError, match=r"one.zip exists"):
        pack(run.path, tmp_path / "one.zip")
    before = run.result.read_bytes()
    with pytest.raises(RunError, match="seed-0 exists, and is not overwritten"):
        unpack(tmp_path / "one.zip", tmp_path / "runs")
    assert run.result.read_bytes() == before and not list((tmp_path / "runs").glob(".*"))
    (tmp_path / "links" / "few").mkdir(parents=True)
    (tmp_path / "links" / "few" / "seed-0").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match="is not overwritten"):
        unpack(tmp_path / "one.zip", tmp_path / "links")


def test_a_half_unpacked_folder_is_no_run(run, tmp_path, monkeypatch):
    """Reject a folder that a kill leaves between the files and the last rename, and that is then taken for a row."""
    pack(run.path, tmp_path / "one.zip")
    monkeypatch.setattr(archive.shutil, "rmtree", lambda *_, **__: None)  # a kill removes nothing
    monkeypatch.setattr(archive.Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        unpack(tmp_path / "one.zip", tmp_path / "there")
    (left,) = (tmp_path / "there").glob(".unpacking-*")
    assert (left / "result.json").is_file() and find_rows([tmp_path / "there"]) == []


@pytest.mark.parametrize("missing", ["result.json", "spec.yaml", "episodes.csv", "checkpoints/best.npz"])
def test_an_archive_without_a_needed_file_is_refused(run, tmp_path, missing):
    pack(run.path, tmp_path / "one.zip")
    file = written(tmp_path / "two.zip", members_of(tmp_path / "one.zip"), **{missing: None})
    with pytest.raises(RunError, match=f"two.zip.*{missing.rpartition('/')[2]}"):
        unpack(file, tmp_path / "there")
    assert not list((tmp_path / "there").glob("*")) and not list((tmp_path / "there").glob(".*"))


def of_another_training():
    file = io.BytesIO()
    np.savez(file, **{"0000": np.zeros(3)}, state=np.array(json.dumps({"format": 1, "training_digest": "0" * 16})))
    return file.getvalue()


def changed(data, **changes):
    return json.dumps(json.loads(data) | changes).encode()


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("spec.yaml", lambda data: data.replace(b"hidden:\n  - 4", b"hidden:\n  - 5"), "not the spec of its row"),
        ("spec.yaml", lambda data: data.replace(b"name: few", b"name: ../few"), "expected letters, digits"),
        ("spec.yaml", lambda data: data + b"extends: few\n", "extends another file"),
        ("spec.yaml", lambda data: b"[" * 1000, "nested too deeply"),
        ("spec.yaml", lambda data: data + b"x: !!python/object/apply:os.system ['true']\n", "cannot be read"),
        ("result.json", lambda data: changed(data, experiment="../../etc"), "result.json was changed: experiment"),
        ("result.json", lambda data: changed(data, seed=5), "seed is 5, and 0 in its spec"),
        ("result.json", lambda data: changed(data, episodes=600), "episodes is 600, and 3"),
        ("result.json", lambda data: changed(data, shot=5), "shot is 5, and 1"),
        ("result.json", lambda data: b"[" * 100_000, "is not a row"),
        ("checkpoints/best.npz", lambda data: data[:100], "not a whole checkpoint"),
        ("checkpoints/best.npz", lambda _: of_another_training(), "best.npz is a checkpoint of another spec"),
    ],
    ids=lambda value: "" if callable(value) else value[:24],
)
def test_an_archive_that_contradicts_itself_is_refused(run, tmp_path, name, change, words):
    """Reject files of two runs in one folder; digests in the manifest are right, as a stranger can make them."""
    pack(run.path, tmp_path / "one.zip")
    members = members_of(tmp_path / "one.zip")
    file = written(tmp_path / "two.zip", members, **{name: change(members[name])})
    with pytest.raises(RunError, match=words) as told:
        unpack(file, tmp_path / "there")
    assert str(told.value).startswith(str(file)) and ".unpacking" not in str(told.value)
    assert not list((tmp_path / "there").glob(".*"))


def test_weights_are_no_bomb_and_no_pickle(tmp_path):
    """Reject an array that asks for more memory than the file has bytes, compressed ones, and objects."""
    np.savez_compressed(tmp_path / "zeros.npz", **{"0000": np.zeros(10**6)}, state=np.array('{"format": 1}'))
    np.savez(tmp_path / "objects.npz", **{"0000": np.array([print], dtype=object)}, state=np.array('{"format": 1}'))
    checkpoint.save(tmp_path / "good.npz", [np.zeros(8)], {})
    data = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "huge.npz").write_bytes(data.replace(b"'shape': (8,), ", b"'shape':(99999999999999,),"[:15]))
    for name in ("zeros", "objects", "huge"):
        with pytest.raises(RunError, match="not a whole checkpoint"):
            checkpoint.read(tmp_path / f"{name}.npz")
    assert checkpoint.read(tmp_path / "good.npz")[1][0].shape == (8,)


def test_only_a_finished_run_that_is_whole_is_packed(run, tmp_path):
    run.best.unlink()
    with pytest.raises(RunError, match="best.npz is missing, the checkpoint that was tested"):
        pack(run.path, tmp_path / "one.zip")
    run.result.unlink()
    with pytest.raises(RunError, match="no result.json: give the folder of a finished run"):
        pack(run.path, tmp_path / "one.zip")
    assert not (tmp_path / "one.zip").exists()


def test_the_commands(run, tmp_path):
    """Call both verbs; results.csv beside the new run knows it."""
    there = tmp_path / "there"
    there.mkdir()
    (there / "results.csv").touch()
    for words, last in (
        (["pack", run.path, tmp_path / "one.zip"], " MB"),
        (["unpack", tmp_path / "one.zip"], "seed-0"),
    ):
        words += ["--out", there] if words[0] == "unpack" else []
        done = CliRunner().invoke(group, list(map(str, words)))
        assert done.exit_code == 0 and done.stdout.strip().endswith(last), (done.output, done.exception)
        assert "dataset.path" in done.stderr
    assert "few,protonet" in (there / "results.csv").read_text()
    assert read_row(there / "few" / "seed-0" / "result.json").mean == ROW["mean"]

"""The page of `metarun report`: whole, safe to open, the same for the same runs."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from command import metarun
from rows import ROW

from metarun.experiments.config.load import load, resolved_yaml
from metarun.experiments.errors import RunError
from metarun.experiments.pages import page
from metarun.experiments.pages.page import find, render
from metarun.experiments.runs.rows import Row

SPEC = "name: e\nalgorithm: {name: maml, inner_lr: 0.4}\nnetwork: {name: conv4}\ndataset: {name: omniglot}\n"
EVIL = "<script>alert('1')</script>\"><img src=x onerror=alert(2)>"
METRICS = "step,split,accuracy,ci95\n10,val,0.4,0.02\n20,val,0.5,0.02\n"
EPISODES = "episode,accuracy,accuracy_0,accuracy_1\n0,0.5,0.2,0.5\n1,0.6,0.2,0.6\n"
CALIBRATION = "bin,queries,confidence,right\n0,10,2,1\n1,30,25,20\n"
ENVIRONMENT = {"step": 0, "device": "CPU", "packages": {"tensorflow": "2.21.0"}, "deterministic": True}
VOID = {"meta", "img", "br"}


def leave(folder, seed=0, spec="", environment=ENVIRONMENT, **changes):
    """Write the files of a finished run."""
    run = folder / f"seed-{seed}"
    run.mkdir(parents=True)
    (folder / "given.yaml").write_text(SPEC + "protocol: inductive\ntrain: {steps: 20}\n" + spec)
    run.joinpath("spec.yaml").write_text(resolved_yaml(load(folder / "given.yaml").experiment))
    run.joinpath("result.json").write_text(json.dumps(Row(**ROW | {"seed": seed} | changes).as_json()))
    for name, text in (("metrics", METRICS), ("episodes", EPISODES), ("calibration", CALIBRATION)):
        run.joinpath(f"{name}.csv").write_text(text)
    run.joinpath("environment.json").write_text(json.dumps([environment]))
    return run


class Parsed(HTMLParser):
    """Collect the elements of a page in their order, and its text; an element that is closed by another is an error."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def attributes(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    for seed in (0, 1):
        leave(folder / "first", seed, experiment="first", mean=0.5 + seed / 50)
    leave(folder / "second", experiment="second", algorithm="reptile", mean=0.4)
    return folder


def fail(run, why="the loss is nan"):
    run.mkdir(parents=True)
    (run / "spec.yaml").write_text(SPEC)
    (run / "failure.txt").write_text(why)


def test_the_page_has_all_that_is_known(runs):
    """Reject a mean without its interval, a number of a paper without verdict, seeds and failures that vanish."""
    fail(runs / "first/seed-2")
    text = Parsed(render(find(runs), sheets=0)).text
    assert "3 finished runs of 2 experiments, 1 run failed" in text
    for told in (
        "51.00 ± 1.00", "within 1 point", "short by 11.00", "2 of 3", "52.00 ± 1.00", "Seeds 0, 1",
        "first: 2 of 3 seeds, seed 2 failed: the loss is nan", "tensorflow 2.21.0", "inner_lr: 0.4",
        "51.00 (somewhere)", "first/seed-2", "Learning", "Adaptation", "Reliability",
    ):  # fmt: skip
        assert told in text, told
    assert "Regret" not in text  # of runs without trials


def test_a_browser_needs_nothing_else_and_a_reader_can_follow(runs):
    """Reject a script, an address in the network, a picture without text, a jump in the headings, a dead link."""
    text = render(find(runs), sheets=0)
    parsed = Parsed(text)
    tags = [tag for tag, _ in parsed.elements]
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(tags)
    assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text
    assert parsed.attributes("html") == [{"lang": "en"}] and tags.count("h1") == tags.count("main") == 1
    assert any(each.get("http-equiv") == "Content-Security-Policy" for each in parsed.attributes("meta"))
    pictures = parsed.attributes("img")
    assert len(pictures) == 3
    for each in pictures:
        assert re.fullmatch(r"data:image/(svg\+xml|png);base64,[A-Za-z0-9+/=]+", each["src"])
        assert int(each["width"]) > 100 and int(each["height"]) > 100
    assert pictures[0]["alt"] == "validation accuracy (%) by training step. maml (2 seeds): 40 at 10, 50 at 20; " + (
        "reptile: 40 at 10, 50 at 20."
    )
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert all(each.get("scope") in ("col", "row") for each in parsed.attributes("th"))
    ids = [each["id"] for _, each in parsed.elements if "id" in each]
    assert len(ids) == len(set(ids))
    assert {each["href"] for each in parsed.attributes("a")} <= {f"#{each}" for each in ids}


def test_whatever_runs_are_named_is_text(tmp_path):
    """Reject a template that does not escape a name, description, source, machine, folder or failure."""
    spec = f"description: {json.dumps(EVIL)}\n"
    folder = tmp_path / "runs & <b>more"
    leave(folder / "a<i>", experiment=EVIL, algorithm=EVIL, dataset=EVIL, spec=spec, published_source=EVIL,
          environment=ENVIRONMENT | {EVIL: EVIL, "host": EVIL, "packages": {EVIL: EVIL}}, device=EVIL)  # fmt: skip
    fail(folder / "'onload='x' <script>/seed-0", f"{EVIL}\x1b[31m\x00\u202e")
    text = render(find(folder), sheets=0)
    parsed = Parsed(text)
    assert not {"script", "b", "i"} & {tag for tag, _ in parsed.elements}
    known = {"alt", "src", "width", "height"}
    assert all(set(each) == known and each["src"].startswith("data:image/") for each in parsed.attributes("img"))
    assert parsed.text.count(EVIL) >= 8
    assert r"\x1b[31m\x00\u202e" in parsed.text and not {"\x1b", "\x00", "\u202e"} & set(text)


def test_the_same_runs_give_the_same_bytes(runs, tmp_path):
    """Compare with another process, time and place. Rejected: a time of writing, random names in an SVG."""
    shutil.copytree(runs, tmp_path / "elsewhere/runs")
    fail(runs / "third/seed-0")
    fail(tmp_path / "elsewhere/runs/third/seed-0")
    done = metarun("report", runs, "--episodes", 0)
    assert done.stdout == f"{runs / 'report.html'}\n" and "third: 0 of 1 seed, seed 0 failed" in done.stderr
    written = (runs / "report.html").read_text()
    assert render(find(runs), sheets=0) == render(find(tmp_path / "elsewhere/runs"), sheets=0) == written
    assert sorted(path.name for path in runs.iterdir() if path.is_file()) == ["report.html"]


def test_many_experiments_are_in_several_charts_and_the_rest_is_told(runs, monkeypatch):
    leave(runs / "third", experiment="third")
    monkeypatch.setattr(page, "LINES", 1)
    monkeypatch.setattr(page, "CHARTS", 2)
    parsed = Parsed(render(find(runs), sheets=0))
    assert len(parsed.attributes("img")) == 2 * 3
    assert "Not in these figures: the last 1 of 3 experiments" in parsed.text
    assert len([each for each in parsed.attributes("section") if each.get("class") == "experiment"]) == 3


def test_one_damaged_file_costs_one_figure(runs, capsys):
    """Reject a page that is not written for it, or that does not say what it lacks."""
    (runs / "second/seed-0/calibration.csv").write_text("bin\n0\n")
    (runs / "second/seed-0/environment.json").write_text("{")
    (runs / "first/seed-1/spec.yaml").write_text("- [")
    parsed = Parsed(render(find(runs), sheets=0))
    assert len(parsed.attributes("img")) == 2
    assert "Not drawn" in parsed.text and "calibration.csv is damaged" in parsed.text
    assert "there is no readable environment.json" in parsed.text
    (runs / "second/seed-0/result.json").write_text("{}")
    assert "with a result.json that is damaged" in Parsed(render(find(runs), sheets=0)).text
    assert "calibration.csv is damaged" in capsys.readouterr().err


def test_a_damaged_row_with_a_further_test_costs_its_run_alone(runs, capsys):
    """Reject a page that is not written because a row, beside which the run has another one, cannot be read."""
    further = runs / "second/seed-0/evaluations/further.json"
    further.parent.mkdir()
    further.write_text((runs / "second/seed-0/result.json").read_text())
    (runs / "second/seed-0/result.json").write_text("{}")
    found = find(runs)
    assert [run.directory.path.name for run in found.runs] == ["seed-0", "seed-1"]
    assert "2 finished runs of 1 experiment" in Parsed(render(found, sheets=0)).text
    assert found.rows is not None and len(found.rows) == 3
    assert capsys.readouterr().err.count("second/seed-0/result.json is not a row") == 1


def test_runs_without_any_result_are_a_page_too(tmp_path):
    with pytest.raises(RunError, match="no finished run below"):
        find(tmp_path)
    fail(tmp_path / "runs/e/seed-0", "no space left")
    parsed = Parsed(render(find(tmp_path / "runs"), sheets=3))
    assert "0 finished runs of 0 experiments, 1 run failed" in parsed.text and "failed: no space left" in parsed.text
    assert not parsed.attributes("img")


def test_a_reproduced_table_is_on_the_page(runs, monkeypatch):
    """Recognise its CSV by its columns: results.csv is none."""
    monkeypatch.setattr(page, "FROM_FILES", {})
    (runs / "paper.csv").write_text(
        "cell,column,method,spec,published,published_ci95,published_source,metric,result,ci95,seed_std,difference,"
        "verdict,best,episodes,seeds,train_steps,budget,protocol,inner_steps,checkpoint,spec_digest,episodes_digest\n"
        "1shot,1-shot,Nets <i>,e.yaml,50.0,,paper,accuracy,50.5,0.7,,0.5,within 1 point,true,600,1,10,,inductive,0,"
        "best,0,1\n"
    )
    (runs / "results.csv").write_text("experiment,mean\na,1\n")
    text = Parsed(render(find(runs), sheets=0)).text
    assert "Table paper" in text and "Nets <i>" in text and "50.50 ± 0.70 *" in text and "Table results" not in text


def test_a_test_task_that_cannot_be_drawn_is_told(runs, monkeypatch, tmp_path):
    """Reject a download where data are missing, a page that is not written, one that shows nothing of it."""
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METARUN_OFFLINE", "1")
    parsed = Parsed(render(find(runs), sheets=1))
    assert re.search(r"Not drawn: Test task 0, seed 0\. .* this run is offline", parsed.text)
    assert "A test task is shown of the first 1 of 2 experiments" in parsed.text
    assert len(parsed.attributes("img")) == 3

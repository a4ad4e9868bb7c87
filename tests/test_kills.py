"""Commands that are killed at random moments end as if they had not been; see benchmarks/kills.py."""

import random

import pytest


@pytest.fixture(scope="module")
def kills(script):
    return script("benchmarks/kills.py")


@pytest.mark.slow
@pytest.mark.parametrize("work", ["train", "test", "tune", "submit"])
def test_killed_at_random_moments(kills, tmp_path, cache_folder, work):
    """Send two kills to each, and one other signal. Rejected: a file that differs, and a command that fails when
    resumed."""
    done = kills.killed(work, 3, 3, ["KILL", "KILL", "INT"], random.Random(work), tmp_path)
    assert done.kills == 3 and not done.problems


def test_what_differs_is_found(kills, tmp_path):
    """Reject a comparison that overlooks a number, a row, a file or an array; times are none of them."""
    run = tmp_path / "tiny" / "seed-0"
    run.mkdir(parents=True)

    def files(row='{"mean": 0.5, "seconds": 1.0}', rows="step,loss,seconds\n1,0.25,3\n"):
        (run / "result.json").write_text(row)
        (run / "metrics.csv").write_text(rows)
        (run / "job.log").write_text(str(random.random()))
        return kills.files_of(tmp_path)

    expected = files()
    assert len(expected) == 2 and files('{"mean": 0.5, "seconds": 2.0}', "step,loss,seconds\n1,0.25,4\n") == expected
    assert files('{"mean": 0.25, "seconds": 1.0}') != expected
    assert files(rows="step,loss,seconds\n1,0.125,3\n") != expected != files(rows="step,loss,seconds\n")

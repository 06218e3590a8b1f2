"""Recordings and questions that commands refuse, and what they say then."""

import re

import numpy as np
import pytest
from runs import dicjax, EXAMPLE, example_train, write_csv

from dicjax.inference.checkpoint import shipped_checkpoint


def test_help_exits_cleanly(capsys):
    assert dicjax("--help") == 0
    assert "generate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no lines of spike times"),
        (["1", "x", "3"], "x"),
        ([10, 20, "nan", *range(30, 200, 10)], "nan"),
        ([-1, *range(10, 200, 10)], "--clean negative"),
        ([10, 30, 20, *range(40, 200, 10)], "20"),
        ([10, 10, *range(20, 200, 10)], "10"),
        ([10, 20, 30], "at least 5"),
        ([x / 1e5 for x in range(1, 40)], "Hz"),
    ],
)
def test_bad_recordings_get_a_sentence_and_nothing_is_written(
    tmp_path, capsys, lines, message
):
    recording = write_csv(tmp_path / "recording.csv", lines)
    assert dicjax("generate", recording, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert said.startswith("dicjax: ")
    assert "Traceback" not in said
    assert re.search(message, said)
    assert [path.name for path in tmp_path.iterdir()] == ["recording.csv"]


def test_a_missing_unit_is_answered_by_an_option(tmp_path, capsys):
    recording = tmp_path / "x.csv"
    recording.write_text("".join(f"{0.1 * i:.3f}\n" for i in range(1, 60)))
    assert dicjax("features", recording) == 2
    said = capsys.readouterr().err
    assert "give the true unit, --unit s makes it 10 Hz" in said
    assert "unit=" not in said
    assert dicjax("features", recording, "--unit", "s") == 0


def test_a_recording_out_of_range_comes_with_a_model_that_suits_it(tmp_path, capsys):
    args = ("--model", "stg", "--out", tmp_path / "out")
    assert dicjax("generate", EXAMPLE, *args) == 2
    said = capsys.readouterr().err
    assert "outside what stg can do" in said
    assert "--model stg-prinz" in said
    assert not (tmp_path / "out").exists()


def test_rhythms_of_fifteen_seconds_are_beyond_every_model(tmp_path, capsys):
    times = np.round(20 * example_train().times, 3)
    slowed = write_csv(tmp_path / "slow.csv", list(times))
    assert dicjax("generate", slowed, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "no model that ships can" in said
    assert "use --out-of-range try." in said
    assert not (tmp_path / "out").exists()


def test_a_refusal_says_which_window_may_help(tmp_path, capsys):
    times = example_train().times
    paused = times + 3_000_000 * (times > times[-1] / 2)
    out = ("--model", "stg-prinz", "--out", tmp_path / "out")
    assert dicjax("generate", write_csv(tmp_path / "x.csv", list(paused)), *out) == 2
    said = capsys.readouterr().err
    assert re.search("consider --window [0-9 ]+ or, to use both sides, --clean p", said)


def test_unknown_models_and_foreign_checkpoints_are_refused(tmp_path, capsys):
    out = ("--out", tmp_path / "out")
    assert dicjax("generate", EXAMPLE, "--model", "squid", *out) == 2
    assert "stg, stg-prinz" in capsys.readouterr().err
    (tmp_path / "foreign").mkdir()
    foreign = ("--model", "stg", "--checkpoint", tmp_path / "foreign")
    assert dicjax("generate", EXAMPLE, *foreign, *out) == 2
    assert "not a dicjax checkpoint" in capsys.readouterr().err
    other = ("--model", "stg", "--checkpoint", shipped_checkpoint("stg-prinz"))
    assert dicjax("generate", EXAMPLE, *other, *out) == 2
    assert "is for the model 'stg-prinz'" in capsys.readouterr().err
    assert dicjax("generate", EXAMPLE, "--tolerance", 0, *out) == 2
    assert not (tmp_path / "out").exists()

"""The same advice, to those who call functions, type commands and click."""

import pickle
import warnings

import pytest

from dicjax._core.advice import (
    Advice,
    advice_of,
    as_argument,
    as_option,
    in_words,
    Remedy,
)


@pytest.mark.parametrize(
    ("remedy", "called", "typed", "clicked"),
    [
        (
            Remedy("window", (299.5, 7000.2)),
            "window(300, 7000)",
            "--window 300 7000",
            "the window 0.3 to 7 s",
        ),
        (
            Remedy("window", "auto"),
            'window="auto"',
            "--window auto",
            "its steady stretch",
        ),
        (Remedy("unit", "s"), 'unit="s"', "--unit s", "“s”"),
        (
            Remedy("clean", "doubles"),
            'clean="doubles"',
            "--clean doubles",
            "“Drop doubles”",
        ),
        (Remedy("unit_id"), "`unit_id`", "--unit-id", "a file of its own"),
        (Remedy("model", "da"), 'model="da"', "--model da", "the model da"),
        (
            Remedy("out_of_range", "try"),
            'out_of_range="try"',
            "--out-of-range try",
            "“Try all the same”",
        ),
        (
            Remedy("budget", 80_000),
            "budget=80000",
            "--budget 80000",
            "80,000 candidates at most",
        ),
    ],
)
def test_a_remedy_is_said_in_three_ways(remedy, called, typed, clicked):
    ways = (as_argument, as_option, in_words)
    assert [way(remedy) for way in ways] == [called, typed, clicked]


def test_advice_is_a_string_that_keeps_its_remedies():
    inner = Advice("give ", Remedy("unit", "s"), ".")
    advice = Advice("x.csv {}: ", inner)
    assert advice == 'x.csv {}: give unit="s".'
    assert advice.said(as_option) == "x.csv {}: give --unit s."
    assert advice.remedies == (Remedy("unit", "s"),)
    again = pickle.loads(pickle.dumps(advice))
    assert (again, again.pieces) == (advice, advice.pieces)


def test_advice_travels_in_errors_and_warnings():
    advice = Advice("Take ", Remedy("model", "da"), ".")
    assert advice_of(ValueError(advice)).remedies == advice.remedies
    with pytest.warns(UserWarning) as caught:
        warnings.warn(advice, stacklevel=1)
    assert advice_of(caught[0].message).said(in_words) == "Take the model da."
    plain = advice_of(FileNotFoundError(2, "No such file", "x.csv"))
    assert not plain.remedies
    assert "x.csv" in plain

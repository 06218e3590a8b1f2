"""An opened recording: its unit, its window, and what is said of it."""

import io

import numpy as np
import pytest

from dicjax._core import Remedy
from dicjax.app.labels import model_options
from dicjax.app.recordings import (
    candidates_of,
    glance,
    hertz,
    open_recording,
    question,
    seconds,
    ways_to_mend,
)
from dicjax.app.runs import Order
from dicjax.app.server_state import example
from dicjax.app.uploads import accepted
from dicjax.recordings import Train
from dicjax.spikes import SpikeTrain


def _accepted(content: bytes):
    return accepted({"x.csv": io.BytesIO(content)})


def _text(times, header="") -> bytes:
    return (header + "".join(f"{t:.6f}\n" for t in times)).encode()


STEADY = 5.0 + 185.0 * np.arange(98)  # ms, a tonic neuron at 5.4 Hz


def test_the_example_states_its_unit():
    assert open_recording(example()).train.num_spikes == 444


def test_a_file_that_states_its_unit_raises_no_question():
    recording = open_recording(_accepted(_text(STEADY / 1e3, "time_s\n")))
    assert recording.candidates == ()
    assert recording.train.num_spikes == 98
    assert recording.train.t_stop == pytest.approx(STEADY[-1])


def test_a_file_without_a_unit_raises_a_question_with_rates():
    recording = open_recording(_accepted(_text(STEADY + 0.25)))
    assert not recording.trains
    assert [x.unit for x in recording.candidates] == ["ms", "s", "us"]
    assert [x.is_credible for x in recording.candidates] == [True, False, False]
    assert [x.is_possible for x in recording.candidates] == [True, True, False]
    assert question(recording) == (
        "98 spikes: 5.41\u202fHz if ms, 0.00541\u202fHz if s, 5405\u202fHz if us."
    )
    recording.answer("ms")
    assert recording.train.num_spikes == 98


def test_an_impossible_answer_is_refused_and_changes_nothing():
    recording = open_recording(_accepted(_text(STEADY + 0.25)))
    with pytest.raises(ValueError, match="us"):
        recording.answer("us")
    assert not recording.trains
    recording.answer("ms")
    assert recording.unit == "ms"


def test_whole_numbers_may_be_samples():
    units = {x.unit for x in candidates_of(Train("a", STEADY * 30))}
    assert units == {"ms", "s", "us", "samples@30000"}
    (only,) = candidates_of(Train("a", STEADY * 30, "samples"))
    assert only.unit == "samples@30000"
    assert only.rate == pytest.approx(5.405, rel=1e-3)
    assert candidates_of(Train("a", STEADY * 20, "samples", rate=20e3)) == ()


def test_a_unit_is_only_suggested_where_no_other_fits():
    slow = 8300.0 * np.arange(1, 80) + 250 * np.sin(np.arange(79))  # ms, 0.12 Hz
    likely = {x.unit for x in candidates_of(Train("a", slow / 1e3)) if x.is_credible}
    assert {"ms", "s"} <= likely
    frames = {x.name for x in candidates_of(Train("a", slow / 1e3))}
    assert any("stimulus" in name for name in frames)


def test_stamps_are_mended_once_the_user_agrees():
    times = np.random.default_rng(0).permutation(STEADY)
    recording = open_recording(_accepted(_text(times, "time_ms\n")))
    assert not recording.trains and recording.fault is not None
    assert ways_to_mend(recording.fault) == ("order",)
    recording.mend("order")
    assert np.allclose(recording.train.times, STEADY) and recording.fault is None
    assert recording.clean == ("order",) and "sorted" in recording.notes[0]


def test_a_finding_offers_to_mend_what_it_found():
    times = np.sort(np.append(STEADY, STEADY[::9] + 0.2))
    recording = open_recording(_accepted(_text(times, "time_ms\n")))
    (finding,) = glance(recording).findings
    assert (finding.kind, finding.clean) == ("doubles", "doubles")
    recording.window = (0.0, 9000.0)
    recording.mend("doubles")
    assert recording.window == (0.0, 9000.0) and not glance(recording).findings
    assert recording.trains[0].num_spikes == 98


def test_times_of_a_usual_unit_raise_a_question_only_if_it_is_impossible():
    assert candidates_of(Train("a", STEADY / 1e3, usual_unit="s")) == ()
    found = candidates_of(Train("a", STEADY, usual_unit="s"))
    assert found[0].unit == "ms"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (bytes(range(256)) * 20, "x.csv"),
        (b"hello\n", "x.csv"),
        (b"1.5\n2.5\n", "5 spikes"),
        (b"time_ms\n" + b"".join(b"%d\n" % i for i in range(50, 0, -1)), "x.csv"),
        (_text(STEADY / 1e3, "spike_time_ms\n"), "x.csv"),
    ],
)
def test_bad_files_are_refused_by_name(content, named):
    with pytest.raises(ValueError, match=named):
        recording = open_recording(_accepted(content))
        recording.answer("ms")


def test_a_glance_follows_the_window():
    recording = open_recording(_accepted(_text(STEADY, "time_ms\n")))
    whole = glance(recording)
    assert dict(whole.facts)["firing pattern"] == "tonic"
    assert dict(whole.facts)["spikes"] == "98"
    assert not whole.findings
    recording.window = (0.0, 5000.0)
    part = glance(recording)
    assert dict(part.facts)["spikes"] == "28"
    assert [x.kind for x in part.findings] == ["few"]
    assert not part.obstacle
    for window in ((0.0, 600.0), (6.0, 7.0)):
        recording.window = window
        assert glance(recording).obstacle
        assert not glance(recording).findings


def test_a_pause_is_reported_without_options_of_the_command_line():
    times = np.append(STEADY, STEADY + 60_000.0)
    recording = open_recording(_accepted(_text(times, "time_ms\n")))
    (finding,) = glance(recording).findings
    assert "--" not in finding.message
    assert "consider the window 60.005 to 77.95 s or" in finding.message
    assert finding.window is not None


def test_lengths_of_recordings_are_never_in_powers_of_ten():
    shown = [seconds(ms) for ms in (59_550.0, 999_900.0, 1_086_000.0, 36e6)]
    assert shown == [f"{x}\u202fs" for x in ("59.55", "999.9", "1086", "36,000")]
    assert hertz(999.7) == "1000\u202fHz"


def test_models_have_words():
    assert list(model_options())[0] == "auto"
    assert {"stg", "stg-prinz", "da"} <= set(model_options())


def test_a_stretch_that_is_steady_is_offered_in_one_step():
    rng = np.random.default_rng(0)
    parts = rng.exponential(200, 100) + 3, 185 * rng.normal(1, 0.05, 400)
    times = np.cumsum(np.concatenate(parts))
    recording = open_recording(_accepted(_text(times, "time_ms\n")))
    (finding,) = glance(recording).findings
    assert finding.kind == "changes" and "use its steady stretch" in finding.message
    assert finding.window is not None
    recording.window = finding.window
    seen = glance(recording)
    assert dict(seen.facts)["firing pattern"] == "tonic" and not seen.findings
    order = Order(SpikeTrain(times), "").changed(Remedy("window", "auto"))
    assert order is not None and order.window is not None
    np.testing.assert_allclose(order.window, finding.window, atol=1e-3)

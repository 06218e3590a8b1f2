import numpy as np
import pytest
from test_current_clamp import assert_same, edited, one, read

from dicjax.recordings import find_steps
from scripts.fuzz.axon import abf2


pytest.importorskip("neo.rawio.axonrawio")


def test_an_axon_file_that_records_both_is_read():
    sweeps = one(num_sweeps=3)
    sweeps = edited(sweeps, current=sweeps.current * [[-1.0], [0.0], [1.0]])
    signals = [("IN 0", "mV", sweeps.V), ("IN 1", "pA", sweeps.current)]
    # The command is less than what was recorded, and must not be taken.
    output = ("Cmd 0", "pA", 7.0, {}, [(1, 99.0, 0.0, 50)])
    content = abf2(signals, 0.1, [output])
    assert_same(read(content, ".abf"), sweeps, rtol=1e-6)


OUTPUT = ("Cmd 0", "pA", 20.0, {}, [(1, 20.0, 0.0, 30), (1, -50.0, 25.0, 100)])


def test_of_an_axon_file_without_a_current_the_protocol_is_taken():
    V = -70 + np.random.default_rng(0).normal(size=(4, 256))
    others = [
        ("Cmd 1", "mV", -70.0, {}, [(1, 5.0, 5.0, 100)]),
        ("Cmd 2", "pA", 9.0, {"nWaveformEnable": 0}, [(1, 5.0, 5.0, 100)]),
    ]
    content = abf2([("IN 0", "mV", V)], 0.05, [OUTPUT, *others])
    sweeps = read(content, ".abf")
    np.testing.assert_allclose(sweeps.V, V, rtol=1e-6)
    assert sweeps.every == 0.05
    expected = np.full((4, 256), 20.0)
    # An ABF2 sweep starts with a 64th of its samples at the holding level.
    expected[:, 34:134] = np.array([[-50.0], [-25.0], [0.0], [25.0]])
    assert np.array_equal(sweeps.current, expected)
    steps = find_steps(sweeps)
    assert (steps.start, steps.stop) == (1.7, 6.7)
    np.testing.assert_allclose(steps.amplitude, [-70, -45, -20, 5])


@pytest.mark.parametrize(
    "outputs, match",
    (
        ([], "current.* IN 0.* pA"),
        ([("Cmd 0", "mV", *OUTPUT[2:])], "current.* Cmd 0.* pA"),
        ([(*OUTPUT[:3], {"nWaveformEnable": 0}, OUTPUT[4])], "current.* IN 0"),
        ([(*OUTPUT[:3], {"nWaveformSource": 2}, OUTPUT[4])], "current.* ABF2"),
        ([(*OUTPUT[:4], [(2, 50.0, 0.0, 100)])], "current.* ABF2"),
        ([OUTPUT, ("Cmd 1", *OUTPUT[1:])], "current.* Cmd 0, Cmd 1"),
    ),
)
def test_a_protocol_that_is_not_one_of_steps_is_not_taken(outputs, match):
    V = -70 + np.random.default_rng(0).normal(size=(4, 256))
    with pytest.raises(ValueError, match=match):
        read(abf2([("IN 0", "mV", V)], 0.05, outputs), ".abf")

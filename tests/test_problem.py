import numpy as np
import pytest
from hypothesis import given, strategies as st

from dicjax.neurons.models import MODELS
from dicjax.simulation.problem import (
    assemble,
    Finished,
    kept_spikes,
    num_ms,
    Part,
    Problem,
    saved_samples,
    SavedSamples,
)


NUM = 4


def problem(**changes):
    g = np.ones((NUM, 8), np.float32)
    start = np.zeros(NUM, np.float32)
    made = Problem(
        MODELS["stg"](), g, start, start, 100.5, 20.0, 0.05, None, None, None
    )
    return made._replace(**changes)


def nobody():
    return Finished(np.zeros(0, int), np.zeros(0, bool), np.zeros(0, bool))


def part(case, cells, times, samples=None, finished=None):
    spikes, none = kept_spikes(case, cells, times), np.zeros(0, int)
    return Part(spikes, none, samples, finished or nobody(), 0)


@given(
    st.lists(st.integers(0, 90), min_size=NUM, max_size=NUM),
    st.lists(st.floats(0, 101), max_size=5),
    st.sampled_from([None, 1, 30]),
)
def test_rows_do_not_depend_on_how_the_time_was_cut(counts, cuts, max_spikes):
    case = problem(max_spikes=max_spikes)
    rng = np.random.default_rng(sum(counts))
    cells = np.repeat(np.arange(NUM), counts)
    times = np.concatenate([np.sort(rng.uniform(0, 101, n)) for n in counts])
    edges = [0, *sorted(cuts), 102]
    parts = [
        part(case, cells[inside], times[inside])
        for low, high in zip(edges, edges[1:], strict=False)
        for inside in [(times >= low) & (times < high)]
    ]
    solution = assemble(case, parts)
    for cell, row in enumerate(solution.spike_times):
        own = times[cells == cell]
        own = own[(own >= case.discard) & (own <= case.duration)]
        assert solution.num_spikes[cell] == len(own)
        fits = own[: len(row)]
        np.testing.assert_array_equal(row[: len(fits)], fits.astype(np.float32))
        assert np.isinf(row[len(fits) :]).all()
    room = solution.spike_times.shape[1]
    assert room == max_spikes if max_spikes else room >= solution.num_spikes.max()


def test_cells_that_never_finished_have_failed():
    case = problem()
    ends = Finished(np.array([3, 1]), np.array([True, False]), np.array([True, False]))
    solution = assemble(case, [part(case, np.zeros(0, int), np.zeros(0), None, ends)])
    assert solution.is_finite.tolist() == [False, False, False, True]
    assert solution.has_lost.tolist() == [False, False, False, True]


def test_cells_fell_short_if_they_did_in_any_part():
    case, nothing = problem(), (np.zeros(0, int), np.zeros(0))
    short = part(case, *nothing)._replace(fell_short=np.array([2, 2]))
    solution = assemble(case, [short, part(case, *nothing)])
    assert solution.fell_short.tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("every", "discard", "first", "last"), [(0.1, 20.0, 201, 1005), (25.0, 0.0, 1, 4)]
)
def test_samples_are_saved_after_discard_up_to_the_end(every, discard, first, last):
    case = problem(save_every=every, discard=discard)
    saved = saved_samples(case)
    assert (saved[0], saved[-1]) == (first, last) and num_ms(case) == 101
    some = SavedSamples(np.array([1, 1]), np.array([0, 2]), np.array([-50.0, -40.0]))
    V = assemble(case, [part(case, np.zeros(0, int), np.zeros(0), some)]).V
    assert V is not None and V.shape == (NUM, len(saved)) and V.dtype == np.float32
    assert V[1, [0, 2]].tolist() == [-50.0, -40.0]
    assert np.isnan(V).sum() == V.size - 2

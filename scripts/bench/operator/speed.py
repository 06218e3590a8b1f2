"""How fast an operator is beside the simulator, and when it has paid for itself."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np

import dicjax as dj
from dicjax.operator import characterise, Family, Operator, respond
from dicjax.operator.characteristics import at_rest
from dicjax.operator.checkpoint import operator_header
from dicjax.operator.scores import DURATION, EVERY, score, START, STOP, Trial
from dicjax.operator.train import predict_trial
from scripts.bench.operator.baselines import coarser
from scripts.bench.operator.common import OperatorBenchmark
from scripts.bench.results import Measurement, row
from scripts.bench.timing import ratios, side_by_side, Timed, timed


OPERATOR = "operator"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed(OperatorBenchmark):
    """Milliseconds per trace of an operator and of the simulator, in turn.

    Then after how many traces the operator has saved what its members and its training
    cost. Potentials are timed until they are in memory of the host.
    """

    batches: tuple[int, ...] = (1, 64, 1024)
    """Traces at once."""
    large: bool = False
    """16,384 traces at once too."""
    repeats: int = 7
    """Measurements of each, after one that compiles."""
    characterised: int = 2048
    """Members whose characterisation is timed."""

    def measure(self) -> Iterator[Measurement]:
        """Measures errors of spike counts, times, and what the operator cost."""
        family, library = self.library()
        name, operator = next(iter(self.loaded().items()))
        trial = self.trials(family, library)["unseen"]
        error = lambda V: 100 * score(V, trial.V).spike_count
        ours = error(predict_trial(operator, trial))
        errors = {dt: error(V) for dt, V in coarser(family, trial)}
        equal = max((dt for dt, x in errors.items() if x <= ours), default=0.1)
        shown = {OPERATOR: ours}
        shown |= {f"simulator, dt {dt:g} ms": x for dt, x in errors.items()}
        for method, x in shown.items():
            columns = {("spike counts", "%"): x}
            yield from row("errors of spike counts", {"method": method}, columns)
        steps = sorted({0.05, 0.1, equal})
        times = {}
        for num in (*self.batches, *([16_384] if self.large else [])):
            calls = calls_of(family, operator, trial, num, steps)
            times[num] = side_by_side(calls, self.repeats)
            for method, took in times[num].items():
                columns = {
                    ("a trace", "ms"): [1000 * x / num for x in took.later],
                    ("times the operator's", ""): ratios(
                        took.later, times[num][OPERATOR].later
                    ),
                    ("first call", "s"): took.first,
                }
                yield from row("speed", {"traces": num, "method": method}, columns)
        g = library.g[: self.characterised]
        took = timed(lambda: characterise(family, g), 1)
        yield from paid_back(operator_header(name), took.later[0] / len(g), times)


def calls_of(
    family: Family, operator: Operator, trial: Trial, num: int, steps: Sequence[float]
) -> dict[str, Callable[[], object]]:
    """Ways to get the potentials of `num` traces."""
    rows = np.arange(num) % len(trial.g)
    I, features, g = trial.current[rows], trial.features[rows], trial.g[rows]
    stimulus = dj.Step(trial.amplitude[rows], START, STOP)
    if family.hold:
        stimulus = stimulus + dj.Step(family.hold)
    V0, _ = at_rest(family, g)
    given = {"stimulus": stimulus, "V0": V0, "save_every": EVERY}
    simulate = functools.partial(dj.simulate, family.neuron, g, DURATION, **given)
    answer = functools.partial(respond, every=EVERY)
    compiled = eqx.filter_jit(answer)
    on_device = jnp.asarray(I), jnp.asarray(features)
    calls: dict[str, Callable[[], object]] = {
        OPERATOR: lambda: np.asarray(answer(operator, I, features).V),
        "operator, unchecked, left on the device": lambda: (
            compiled(operator, *on_device).V
        ),
    }
    for dt in steps:
        name = f"simulator, dt {dt:g} ms"
        calls[name] = functools.partial(simulate, dt=dt, save_every=0.1)
    calls["simulator, dt 0.05 ms, spikes alone"] = functools.partial(simulate, dt=0.05)
    return calls


def paid_back(
    header: dict, each: float, times: dict[int, dict[str, Timed]]
) -> Iterator[Measurement]:
    """After how many traces an operator has saved what it cost.

    Never, if it is not faster. `each` is the time of a member, in s.
    """
    num, training = header["training"]["members"], header.get("seconds")
    columns = {
        ("members", ""): num,
        ("characterising each", "ms"): 1000 * each,
        ("training", "s"): np.nan if training is None else training,
    }
    yield from row("what the operator cost", {}, columns)
    cost = num * each + (training or 0.0)
    for batch, of in times.items():
        a_trace = {name: float(np.median(x.later)) / batch for name, x in of.items()}
        for method, seconds in a_trace.items():
            if method.startswith("simulator"):
                saved = seconds - a_trace[OPERATOR]
                case = {"traces at once": batch, "against": method}
                if saved > 0:
                    columns = {("paid back after", "traces"): round(cost / saved)}
                    yield from row("paid back", case, columns)
                else:
                    yield Measurement("paid back", case, note="never")

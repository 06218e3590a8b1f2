"""What lies between members that fire alike but differ in conductances."""

import dataclasses
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from scipy.spatial import KDTree

from dicjax.operator import (
    characterise,
    CharacterisedMembers,
    FEATURES,
    Operator,
    respond,
)
from dicjax.operator.characteristics import (
    are_logarithms,
    COUNTS,
    from_coordinates,
    NAMES,
    to_coordinates,
)
from dicjax.operator.scores import EVERY
from dicjax.spikes import step_response
from scripts.bench.operator.common import counts, OperatorBenchmark
from scripts.bench.results import Measurement, row


ALIKE = ("threshold", "gain", "rest", "resistance")  # in which pairs agree
MEASURED = ("threshold", "gain", "height", "width", "adaptation")
ROUNDS, WITHIN = 12, 2.0  # of halving a range: the given current, divided and times
BEFORE, LONG = 20.0, 1000.0  # ms, of the steps that thresholds are measured with


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interpolation(OperatorBenchmark):
    """Features of midpoints between members that fire alike but differ in conductances.

    The simulator takes the midpoint of conductances, operators the midpoint of
    features. Errors are distances from the midpoint of features.
    """

    pairs: int = 64
    """Pairs of members, most distant conductances first."""
    tolerance: float = 0.03
    """How far features within a pair may differ, as a share."""

    def measure(self) -> Iterator[Measurement]:
        """Measures midpoints of all pairs."""
        family, library = self.library()
        first, second = pairs(library, self.tolerance, self.pairs)
        log_g = [np.log(x.g.astype(np.float64)) for x in (first, second)]
        ratio = np.exp(np.median(np.abs(log_g[0] - log_g[1]), axis=0))
        names = family.neuron.channel_names
        columns = {(x, ""): float(r) for x, r in zip(names, ratio, strict=True)}
        title = f"ratios of conductances within {len(first)} pairs, medians"
        yield from row(title, {}, columns)
        x = [np.asarray(to_coordinates(end.measured.values)) for end in (first, second)]
        wanted = np.asarray(from_coordinates((x[0] + x[1]) / 2))
        found = characterise(
            family, np.exp((log_g[0] + log_g[1]) / 2).astype(np.float32)
        )
        values = np.where(found.is_complete[:, None], found.values, np.nan)
        results = {"simulator, midpoint of conductances": (values, wanted)}
        own = first.measured.values
        for name, operator in self.loaded().items():
            values = answered_features(operator, wanted)
            results[f"{name}, midpoint of features"] = values, wanted
            values = answered_features(operator, own)
            results[f"{name}, an unseen member's own"] = values, own
        for name, (values, of) in results.items():
            title = f"{len(first)} pairs within {100 * self.tolerance:g} %"
            yield from row(title, {"prediction": name}, errors(values, of))


def errors(
    values: np.ndarray, wanted: np.ndarray
) -> dict[tuple[str, str], float | int]:
    """Distances of features from those that were wanted, where cells fire so often."""
    units = {x.name: "%" if x.is_log else x.unit for x in FEATURES}
    fires = np.isfinite(values[:, NAMES.index("gain")])
    columns: dict[tuple[str, str], float | int] = {}
    for feature in MEASURED:
        a, b = (x[fires, NAMES.index(feature)] for x in (values, wanted))
        is_log = are_logarithms((feature,))[0]
        error = 100 * np.abs(a / b - 1) if is_log else np.abs(a - b)
        ends = np.nanquantile(error, (0.5, 0.9)) if len(error) else (np.nan, np.nan)
        columns[f"{feature}, median error", units[feature]] = float(ends[0])
        columns[f"{feature}, 90 % within", units[feature]] = float(ends[1])
    columns["cells", ""] = len(wanted)
    columns["of these fire so often", ""] = int(fires.sum())
    return columns


def pairs(
    library: CharacterisedMembers, tolerance: float, num: int
) -> tuple[CharacterisedMembers, CharacterisedMembers]:
    """Unseen members and seen ones that are alike, most distant conductances first.

    An unseen member comes once, with the seen one that differs most in conductances.
    """
    seen, unseen = library.seen, library.unseen
    alike = lambda of: np.log(np.abs([of.measured[name] for name in ALIKE])).T
    near = KDTree(alike(seen)).query_ball_point(
        alike(unseen), np.log1p(tolerance), p=np.inf
    )
    chosen = []
    for i, of in enumerate(near):
        if of:
            away = np.linalg.norm(np.log(seen.g[of] / unseen.g[i]), axis=1)
            chosen.append((away.max(), i, of[away.argmax()]))
    if not chosen:
        raise SystemExit("No members are so alike: use more, or a wider --tolerance.")
    _, one, other = zip(*sorted(chosen, reverse=True)[:num], strict=True)
    return unseen[np.array(one)], seen[np.array(other)]


def answered_features(operator: Operator, features: np.ndarray) -> np.ndarray:
    """Features of an operator's answers, measured as `characterise` does on cells."""
    threshold, gain = (features[:, NAMES.index(name)] for name in MEASURED[:2])
    apart = COUNTS[1] - COUNTS[0]
    everyone = np.tile(features, (2, 1)).astype(np.float32)
    wanted = np.repeat(COUNTS[:2], len(features))
    on = EVERY * np.arange(round((BEFORE + LONG) / EVERY) + 1) >= BEFORE - 1e-6

    def answer(amplitude, features):
        I = (amplitude[:, None] * on).astype(np.float32)
        return np.asarray(respond(operator, I, features, every=EVERY).V)

    def fires(log_I):
        V = answer(np.exp(log_I), everyone)
        return counts(V, BEFORE, BEFORE + LONG) >= wanted

    center = np.log(np.concatenate([threshold, threshold + apart / gain]))
    low, high = center - np.log(WITHIN), center + np.log(WITHIN)
    is_within = ~fires(low) & fires(high)
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        is_above = fires(middle)
        low, high = np.where(is_above, low, middle), np.where(is_above, middle, high)
    currents = np.where(is_within, np.exp((low + high) / 2), np.nan)
    five, fifteen = currents.reshape(2, -1)
    V = answer(np.nan_to_num(fifteen), features.astype(np.float32))
    response = step_response(jnp.asarray(V), EVERY, BEFORE, BEFORE + LONG)
    values = np.full(features.shape, np.nan)
    values[:, NAMES.index("threshold")] = five
    values[:, NAMES.index("gain")] = apart / (fifteen - five)
    for name in MEASURED[2:]:
        values[:, NAMES.index(name)] = np.asarray(getattr(response, name))
    return values

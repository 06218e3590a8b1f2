"""How NeuroML states a neuron: a component type of LEMS, its language of equations."""

import dataclasses
import re
from typing import Any

from dicjax.output.exporters.equations import Equations, V
from dicjax.output.exporters.expressions import (
    apply,
    assignments,
    constant,
    Expression,
    FUNCTIONS,
    INFIX,
    substitute,
    Syntax,
    variable,
    walk,
)


COMPARISONS = {
    "lt": " .lt. ",
    "le": " .leq. ",
    "gt": " .gt. ",
    "ge": " .geq. ",
    "eq": " .eq. ",
    "ne": " .neq. ",
}
SYNTAX = Syntax(
    functions={**FUNCTIONS, "log": "ln", "abs": "abs"},
    infix=(
        {"or": " .or. "},
        {"and": " .and. "},
        COMPARISONS,
        *INFIX[3:5],
        {"pow": "^"},
    ),
    nameless=(*COMPARISONS, "and", "or"),
)
NAME = re.compile(r"[A-Za-z_]\w*")
OPPOSITE = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}


@dataclasses.dataclass(frozen=True)
class Statement:
    """A variable that follows from others: the first case whose condition holds.

    A case is a value and its condition, which is empty in the last one.
    """

    name: str
    cases: tuple[tuple[str, str], ...]

    @property
    def value(self) -> str:
        return self.cases[-1][0]

    @property
    def used(self) -> set[str]:
        return set(NAME.findall(" ".join(map(" ".join, self.cases))))


def values_of(model: Equations) -> dict[str, Any]:
    currents = model.currents_of("I", "g")
    # What has a unit in LEMS is read as a number.
    numbers = {V: variable("v_mV")}
    numbers |= {f"g_{c}": variable(f"gbar_{c}") for c in model.channels.values()}
    outputs = {
        name: _plain(substitute(x, numbers))
        for name, x in {**currents, **model.parts}.items()
    }
    states = [x.name for x in model.states]
    return {
        "derivatives": {
            x.name: x.written("({inf} - {x})/{tau}", "{rate}") for x in model.states
        },
        "total": " + ".join(currents),
        **_sorted(_statements(outputs)),
        "states": states,
    }


def _sorted(statements: list[Statement]) -> dict[str, list[Statement]]:
    """Choices come last, with all that depends on one, as LEMS wants them."""
    plain, chosen = [], []
    for x in statements:
        depends = len(x.cases) > 1 or x.used & {y.name for y in chosen}
        (chosen if depends else plain).append(x)
    return {"plain": plain, "chosen": chosen}


def _statements(outputs: dict[str, Expression]) -> list[Statement]:
    """What computes `outputs`, in order; choices and what is chosen get names."""
    choices = [x for x in walk(outputs.values()) if x.op == "select"]
    found, known = [], {}
    for i, choice in enumerate(choices, 1):
        test, yes, no = choice.args
        parts = {f"yes{i}": yes, f"no{i}": no}
        found += _assigned(parts, known, f"c{i}_")
        *before, last = _assigned({f"test{i}": test}, known, f"t{i}_")
        found += before
        found.append(Statement(f"choice{i}", ((f"yes{i}", last.value), (f"no{i}", ""))))
        known[choice] = f"choice{i}"
    return found + _assigned(outputs, known, "")


def _assigned(
    outputs: dict[str, Expression], known: dict[Expression, str], prefix: str
) -> list[Statement]:
    renamed = lambda text: re.sub(r"\bu(\d+)\b", rf"{prefix}u\1", text)
    return [
        Statement(renamed(name), ((renamed(text), ""),))
        for name, text in assignments(outputs, SYNTAX, known)
    ]


def _plain(x: Expression) -> Expression:
    """The same by operations that LEMS has."""
    done: dict[Expression, Expression] = {}
    for node in walk([x]):
        args = [done[arg] for arg in node.args]
        make = _LACKING.get(node.op)
        own = apply(node.op, *args) if args else node
        done[node] = make(*args) if make else own
    return done[x]


def _not(x: Expression) -> Expression:
    if x.op in OPPOSITE:
        return apply(OPPOSITE[x.op], *x.args)
    if x.op in ("and", "or"):
        other = "or" if x.op == "and" else "and"
        return apply(other, *map(_not, x.args))
    return apply("eq", x, constant(0.0))


def _log1p(x: Expression) -> Expression:
    u = constant(1.0) + x  # its rounding cancels
    one = apply("eq", u, constant(1.0))
    safe = apply("select", one, constant(2.0), u)
    return apply("select", one, x, apply("log", safe) * x / (safe - constant(1.0)))


def _expm1(x: Expression) -> Expression:
    return apply("tanh", x / constant(2.0)) * (apply("exp", x) + constant(1.0))


_LACKING = {
    "max": lambda x, y: apply("select", apply("gt", x, y), x, y),
    "min": lambda x, y: apply("select", apply("lt", x, y), x, y),
    "expm1": _expm1,
    "log1p": _log1p,
    "not": _not,
}

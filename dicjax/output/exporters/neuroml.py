"""How NeuroML states a neuron: a component type of LEMS, its language of equations."""

import dataclasses
import functools
import itertools
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
    operation,
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
OPPOSITE = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}
JUNCTIONS = {"and": "or", "or": "and"}  # and what each becomes where both are denied
LOGICAL = {*COMPARISONS, *JUNCTIONS}
SYNTAX = Syntax(
    functions={**FUNCTIONS, "log": "ln", "abs": "abs"},
    infix=(
        {"or": " .or. "},
        {"and": " .and. "},
        COMPARISONS,
        *INFIX[3:5],
        {"pow": "^"},
    ),
    nameless=LOGICAL,
)
NAME = re.compile(r"[A-Za-z_]\w*")
ZERO, ONE = constant(0.0), constant(1.0)


@dataclasses.dataclass(frozen=True)
class Statement:
    """A variable that follows from others: the first case whose condition holds.

    A case is a value and its condition, which is empty in the last one.
    """

    name: str
    cases: tuple[tuple[str, str], ...]

    @property
    def value(self) -> str:
        """Of the last case, which is the only one where nothing is chosen."""
        return self.cases[-1][0]

    @property
    def used(self) -> set[str]:
        """Names in it, among them those of functions."""
        return set(NAME.findall(" ".join(map(" ".join, self.cases))))


def values_of(model: Equations) -> dict[str, Any]:
    """What the template of the component type writes."""
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
        is_chosen = len(x.cases) > 1 or x.used & {y.name for y in chosen}
        (chosen if is_chosen else plain).append(x)
    return {"plain": plain, "chosen": chosen}


def _statements(outputs: dict[str, Expression]) -> list[Statement]:
    """What computes `outputs`, in order.

    The i-th choice is the variable `choice{i}` between `yes{i}` and `no{i}`. Parts that
    are used twice in its values are `c{i}_u1` and so on, in its condition `t{i}_u1`.
    """
    choices = [x for x in walk(outputs.values()) if x.op == "select"]
    found, known = [], {}
    for i, choice in enumerate(choices, 1):
        test, yes, no = choice.args
        found += _assigned({f"yes{i}": yes, f"no{i}": no}, known, f"c{i}_")
        # No variable holds a condition: it is written where it is used.
        *shared, condition = _assigned({"condition": test}, known, f"t{i}_")
        cases = (f"yes{i}", condition.value), (f"no{i}", "")
        found += [*shared, Statement(f"choice{i}", cases)]
        known[choice] = f"choice{i}"
    return found + _assigned(outputs, known, "")


def _assigned(
    outputs: dict[str, Expression], known: dict[Expression, str], prefix: str
) -> list[Statement]:
    """Statements whose shared parts have names with a prefix."""
    renamed = lambda text: re.sub(r"\bu(\d+)\b", rf"{prefix}u\1", text)
    return [
        Statement(renamed(name), ((renamed(text), ""),))
        for name, text in assignments(outputs, SYNTAX, known)
    ]


def _plain(x: Expression) -> Expression:
    """The same by operations that LEMS has, where conditions are no numbers."""
    done: dict[Expression, Expression] = {}
    for node in walk([x]):
        make = _OTHERWISE.get(node.op, operation(node.op))
        kinds = _KINDS.get(node.op, itertools.repeat(_number))
        args = [kind(done[arg]) for kind, arg in zip(kinds, node.args, strict=False)]
        done[node] = make(*args) if args else node
    return _number(done[x])


def _number(x: Expression) -> Expression:
    """1 or 0 in place of a condition."""
    return apply("select", x, ONE, ZERO) if x.op in LOGICAL else x


def _condition(x: Expression) -> Expression:
    """A condition in place of 1 or 0, such as one that was chosen."""
    is_known = x.op in LOGICAL or x.op == "constant"
    return x if is_known else apply("ne", x, ZERO)


_KINDS = {
    **dict.fromkeys((*JUNCTIONS, "not"), (_condition, _condition)),
    "select": (_condition, _number, _number),
}
"""What operations take, if it is not numbers only."""


def _junction(op: str, x: Expression, y: Expression) -> Expression:
    """`and` or `or` of two conditions; LEMS has no constant ones."""
    for one, other in ((x, y), (y, x)):
        if one.op == "constant":
            return other if bool(one.value) == (op == "and") else one
    return apply(op, x, y)


def _not(x: Expression) -> Expression:
    if x.op in OPPOSITE:
        return apply(OPPOSITE[x.op], *x.args)
    if x.op in JUNCTIONS:
        return _junction(JUNCTIONS[x.op], *map(_not, x.args))
    return apply("not", x)  # of a constant


def _log1p(x: Expression) -> Expression:
    u = ONE + x  # its rounding cancels
    is_one = apply("eq", u, ONE)
    safe = apply("select", is_one, constant(2.0), u)
    return apply("select", is_one, x, apply("log", safe) * x / (safe - ONE))


def _expm1(x: Expression) -> Expression:
    return apply("tanh", x / constant(2.0)) * (apply("exp", x) + ONE)


_OTHERWISE = {
    "max": lambda x, y: apply("select", apply("gt", x, y), x, y),
    "min": lambda x, y: apply("select", apply("lt", x, y), x, y),
    "expm1": _expm1,
    "log1p": _log1p,
    "and": functools.partial(_junction, "and"),
    "or": functools.partial(_junction, "or"),
    "not": _not,
}
"""What LEMS writes otherwise, or lacks."""

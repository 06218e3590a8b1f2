"""Scalar expressions, and how languages write them.

Equal expressions are one object, so that shared parts of curves are computed once.
"""

import dataclasses
import functools
import itertools
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from dicjax.neurons import ELEMENTWISE, NAMED


def operation(op: str) -> Callable[..., "Expression"]:
    return lambda *args, **_: apply(op, *args)


@dataclasses.dataclass(frozen=True, eq=False)
class Expression:
    """An operation on other expressions, a constant or a variable.

    - `op`: `"constant"`, `"variable"` or the operation on `args`.
    - `value`: the constant, or the name of the variable.
    """

    op: str
    args: tuple["Expression", ...] = ()
    value: float | str = ""

    @functools.cached_property
    def variables(self) -> frozenset[str]:
        own = {str(self.value)} if self.op == "variable" else ()
        return frozenset(own).union(*(arg.variables for arg in self.args))

    __add__, __sub__ = operation("add"), operation("sub")
    __mul__, __truediv__ = operation("mul"), operation("div")
    __neg__ = operation("neg")


_known: weakref.WeakValueDictionary = weakref.WeakValueDictionary()

FOLD: dict[str, Callable[..., float]] = {
    **ELEMENTWISE,
    "select": lambda is_true, yes, no: yes if is_true else no,
}
"""Every operation there is, on numbers."""
NEUTRAL = {"add": 0, "sub": 0, "mul": 1, "div": 1, "pow": 1}
"""What changes nothing on the right of an operation."""


def constant(value: int | float | np.generic) -> Expression:
    """A number; single precision is read as the shortest decimal that it prints as."""
    is_single = np.asarray(value).dtype == np.float32
    return _unique("constant", (), float(str(value) if is_single else value))


def variable(name: str) -> Expression:
    return _unique("variable", (), name)


def apply(op: str, *args: Expression) -> Expression:
    """`op` on `args`, simplified, and computed if all are constant."""
    if all(arg.op == "constant" for arg in args):
        with np.errstate(all="ignore"):
            return constant(float(FOLD[op](*(arg.value for arg in args))))
    if op in NEUTRAL and is_constant(args[1], NEUTRAL[op]):
        return args[0]
    if op in ("add", "mul") and is_constant(args[0], NEUTRAL[op]):
        return args[1]
    simpler = _SIMPLER[op](*args) if op in _SIMPLER else None
    return _unique(op, args) if simpler is None else simpler


def is_constant(x: Expression, value: int | float) -> bool:
    return x.op == "constant" and x.value == value


def walk(
    roots: Iterable[Expression], known: Container[Expression] = ()
) -> list[Expression]:
    """All expressions in `roots`, each after its arguments; none within `known`."""
    seen: dict[Expression, None] = {}
    waiting = [*roots][::-1]
    while waiting:
        x = waiting.pop()
        args = [arg for arg in x.args if arg not in seen and x not in known]
        if args:
            waiting += [x, *args[::-1]]
        else:
            seen[x] = None
    return list(seen)


def substitute(x: Expression, values: Mapping[str, Expression]) -> Expression:
    """`x` with other expressions in place of some of its variables."""
    done: dict[Expression, Expression] = {}
    for node in walk([x]):
        args = [done[arg] for arg in node.args]
        is_variable = node.op == "variable"
        leaf = values.get(str(node.value), node) if is_variable else node
        done[node] = apply(node.op, *args) if args else leaf
    return done[x]


def affine(x: Expression, name: str) -> tuple[Expression, Expression]:
    """`(a, b)` with `x = a + b * name` and no `name` in `b`.

    Terms that are not affine in the variable stay whole in `a`.
    """
    if x is variable(name):
        return constant(0.0), constant(1.0)
    if name not in x.variables:
        return x, constant(0.0)
    if x.op in ("add", "sub", "neg"):
        a, b = zip(*(affine(arg, name) for arg in x.args), strict=True)
        return apply(x.op, *a), apply(x.op, *b)
    if x.op in ("mul", "div"):
        left, right = x.args
        if name not in right.variables:
            a, b = affine(left, name)
            return apply(x.op, a, right), apply(x.op, b, right)
        if x.op == "mul" and name not in left.variables:
            a, b = affine(right, name)
            return left * a, left * b
    return x, constant(0.0)


# Writing

COMPARISONS = {"lt": " < ", "le": " <= ", "gt": " > ", "ge": " >= "}
COMPARISONS = {**COMPARISONS, "eq": " == ", "ne": " != "}
SUM, PRODUCT = {"add": " + ", "sub": " - "}, {"mul": "*", "div": "/"}
INFIX = ({"or": " or "}, {"and": " and "}, COMPARISONS, SUM, PRODUCT, {"pow": "**"})
FUNCTIONS = {name: name for name in NAMED}
DEFINED = {"max": "larger", "min": "smaller", "select": "choose"}
"""Functions that an export defines where its language lacks them."""

WIDTH = 66  # characters beyond which an expression is split
ATOM = 100  # binds more strongly than every operator


class Syntax(NamedTuple):
    """How a language writes expressions.

    - `functions`: names of functions, by operation.
    - `infix`: other operators, by operation, from the weakest to the strongest binding.
    - `nameless`: operations whose results no variable can hold.
    """

    functions: Mapping[str, str]
    infix: tuple[Mapping[str, str], ...] = INFIX
    nameless: Collection[str] = ()


def assignments(
    outputs: Mapping[str, Expression],
    syntax: Syntax,
    known: Mapping[Expression, str] | None = None,
) -> list[tuple[str, str]]:
    """Statements `name = text` that compute `outputs`, in order.

    Shared or long parts get separate names, `u` and a number. These must be declared
    as local. Expressions in `known` are read from the variable there.
    """
    names = dict(known or {})
    statements: list[tuple[str, str]] = []
    computed = [x for x in walk(outputs.values(), names) if x not in names]
    uses = Counter([*outputs.values(), *(arg for x in computed for arg in x.args)])
    numbers = itertools.count(1)

    def text(x: Expression) -> tuple[str, int]:
        if x in names or x.op == "variable":
            return names.get(x, str(x.value)), ATOM
        written, strength = _written(x, syntax, [text(arg) for arg in x.args])
        is_worth_it = uses[x] > 1 and any(arg.args for arg in x.args)
        if x.op not in syntax.nameless and (is_worth_it or len(written) > WIDTH):
            names[x] = f"u{next(numbers)}"
            statements.append((names[x], written))
            return names[x], ATOM
        return written, strength

    for name, x in outputs.items():
        if x in names or not x.args:
            statements.append((name, text(x)[0]))
            continue
        written, _ = _written(x, syntax, [text(arg) for arg in x.args])
        statements.append((name, written))
        names[x] = name
    return statements


def _written(
    x: Expression, syntax: Syntax, args: list[tuple[str, int]]
) -> tuple[str, int]:
    """The text of `x`, and how strongly its last operation binds."""
    level = {op: i for i, ops in enumerate(syntax.infix) for op in ops}
    if x.op == "constant":
        return _number(float(x.value)), level["add"] if float(x.value) < 0 else ATOM
    if x.op == "neg":
        return "-" + _wrapped(args[0], level["mul"]), level["add"]
    if x.op in syntax.functions:
        inner = ", ".join(text for text, _ in args)
        return f"{syntax.functions[x.op]}({inner})", ATOM
    own, first = level[x.op], x.args[0]
    if x.op in PRODUCT and first.op == "constant" and float(first.value) < 0:
        left, strength = args[0][0], level["add"]
    else:
        # An equal operation on the left needs parentheses if it does not associate.
        left, strength = _wrapped(args[0], own + (x.op not in (*SUM, *PRODUCT))), own
    right = _wrapped(args[1], own + (x.op != "mul"))
    return left + syntax.infix[own][x.op] + right, strength


def _wrapped(text: tuple[str, int], least: int) -> str:
    return text[0] if text[1] >= least else f"({text[0]})"


def _number(value: float) -> str:
    if not np.isfinite(value):
        raise ValueError(f"A model holds the constant {value}, which has no text.")
    return repr(int(value)) if value == int(value) < 1e6 else repr(value)


# Simplifying


def _unique(op: str, args: tuple[Expression, ...], value: float | str = ""):
    return _known.setdefault((op, args, value), Expression(op, args, value))


def _sub(x: Expression, y: Expression) -> Expression | None:
    if is_constant(x, 0):
        return -y
    return x + -y if _is_negative(y) else None


def _is_negative(x: Expression) -> bool:
    """Whether `x` has a minus sign that can be removed."""
    if x.op == "constant":
        return float(x.value) < 0
    is_led = x.op in ("mul", "div", "sub")
    return x.op == "neg" or (is_led and _is_negative(x.args[0]))


def _is_infinite(x: Expression) -> bool:  # which models never compute
    return x.op == "constant" and bool(np.isinf(float(x.value)))


def _mul(x: Expression, y: Expression) -> Expression | None:
    if is_constant(x, 0):
        return x
    if is_constant(y, 0):
        return y
    if is_constant(x, -1):
        return -y
    if is_constant(y, -1):
        return -x
    if y.op == "constant":
        return y * x
    if x.op == "constant" and _is_negative(y):
        return -x * -y
    if x.op == "constant" and y.op == "div" and y.args[1].op == "constant":
        return x / y.args[1] * y.args[0]
    return x / y.args[1] if y.op == "div" and is_constant(y.args[0], 1) else None


def _div(x: Expression, y: Expression) -> Expression | None:
    if is_constant(x, 0):
        return x
    if x.op == "neg" and y.op == "constant":
        return x.args[0] / -y
    return -x if is_constant(y, -1) else None


def _neg(x: Expression) -> Expression | None:
    if x.op == "neg":
        return x.args[0]
    if x.op == "sub":
        return x.args[1] - x.args[0]
    if x.op in ("mul", "div") and _is_negative(x):
        return apply(x.op, -x.args[0], x.args[1])
    return None


_SIMPLER: dict[str, Callable[..., Expression | None]] = {
    "add": lambda x, y: x - -y if _is_negative(y) else None,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "eq": lambda _, y: constant(False) if _is_infinite(y) else None,
    "select": lambda which, yes, no: (
        (yes if which.value else no) if which.op == "constant" else None
    ),
}

"""Numbers and lists as sentences hold them."""

from collections.abc import Sequence


def listed(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def short(x: float, digits: int = 3) -> str:
    """A number to a few digits, never in powers of ten, such as 0.0123 or 12,345."""
    if abs(x) < 1e-4:
        return "< 0.0001" if x > 0 else "0"
    if abs(x) < 10**digits - 0.5:
        return f"{x:.{digits}g}"
    return f"{x:,.0f}" if abs(x) >= 10_000 else f"{x:.0f}"


def signed(x: float) -> str:
    """A number with its sign, to two digits, and without exponents."""
    if abs(x) < 5e-4:
        return "0"
    return f"{x:+.0f}" if abs(x) >= 99.5 else f"{x:+.2g}"


def spread(median: float, low: float, high: float) -> str:
    """A median and what holds most members, unless all agree."""
    middle, *ends = (signed(float(x)) for x in (median, low, high))
    return middle if ends[0] == ends[1] else f"{middle} ({ends[0]} to {ends[1]})"

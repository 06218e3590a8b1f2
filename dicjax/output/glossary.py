"""What the report and the app say a term means: the words of `docs/glossary.md`."""

import functools
import re
from typing import NamedTuple

from dicjax._core import shipped_path


LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
SEE = re.compile(r"\s*See \[[^\]]+\]\([^)]*\)\.")  # pages that are not at hand there


class Term(NamedTuple):
    name: str
    meaning: str


@functools.cache
def glossary() -> dict[str, Term]:
    """All terms by their anchors, such as "half-step"; none if the file is missing."""
    path = shipped_path("docs", "glossary.md")
    if path is None:
        return {}
    _, *sections = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.M)
    terms = {}
    for section in sections:
        name, _, text = section.partition("\n")
        meaning = LINK.sub(r"\1", SEE.sub("", " ".join(text.split())))
        terms[name.strip().lower().replace(" ", "-")] = Term(name.strip(), meaning)
    return terms

import pathlib
import re

from dicjax.output.glossary import glossary
from dicjax.output.report import TERMS


PAGE = pathlib.Path(__file__).parents[1] / "docs" / "glossary.md"


def test_the_glossary_has_every_term_of_its_page_in_plain_text():
    headings = re.findall(r"^## (.+)$", PAGE.read_text(), re.M)
    assert [term.name for term in glossary().values()] == headings
    for name, meaning in glossary().values():
        assert len(meaning) > 40, name
        assert not re.search(r"[][#]|\]\(|`?\.md", meaning), name


def test_the_report_explains_terms_that_exist():
    assert set(TERMS) <= set(glossary())

"""The Japanese pages match the English ones: the same headings, commands and parameters, in the same order."""

import re

import pytest

from tests.support.docs_tables import ROOT
from tests.support.sam import template

PAGES = {"README.ja.md": "README.md", "docs/ja/deploying.md": "docs/deploying.md"}
ENGLISH_ONLY = {"parameters", "permissions", "releases"}
"""Sections that have no translation."""
_FENCE = re.compile(r"^ *```\w*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def _sections(page: str) -> dict[str, str]:
    """Return a page's sections in order, by the English names of their headings. `top` is the text before the first."""
    text = (ROOT / page).read_text()
    fences: list[str] = []
    hidden = _FENCE.sub(lambda found: f"\0{fences.append(found[0]) or len(fences) - 1}\0", text)
    parts = re.split(r"^(#{2,3}) (.+)\n", hidden, flags=re.MULTILINE)
    found = {"top": parts[0]}
    skipped = False
    for level, title, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        marked = re.match(r'\n<a id="([^"]+)"></a>', body)
        name = marked[1] if marked else re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        skipped = name in ENGLISH_ONLY if level == "##" else skipped
        if not skipped:
            found[name] = body
    return {
        name: re.sub("\0(\\d+)\0", lambda number: fences[int(number[1])], body)
        for name, body in found.items()
    }


@pytest.fixture(params=PAGES.items(), ids=list(PAGES))
def pair(request: pytest.FixtureRequest) -> tuple[dict[str, str], dict[str, str]]:
    """The sections of a Japanese page, and of its English original."""
    japanese, english = request.param
    return _sections(japanese), _sections(english)


def test_headings_are_the_same(pair: tuple[dict[str, str], dict[str, str]]) -> None:
    """Both pages have the same sections in the same order."""
    japanese, english = pair

    assert list(english) == list(japanese)


def test_commands_are_the_same(pair: tuple[dict[str, str], dict[str, str]]) -> None:
    """Each section has exactly the same code blocks."""
    japanese, english = pair

    assert {name: _FENCE.findall(text) for name, text in english.items()} == {
        name: _FENCE.findall(text) for name, text in japanese.items()
    }


def test_parameters_and_amounts_are_the_same(pair: tuple[dict[str, str], dict[str, str]]) -> None:
    """Each section mentions the same template parameters and dollar amounts."""
    japanese, english = pair
    names = "|".join(sorted(template()["Parameters"], key=len, reverse=True))
    said = re.compile(rf"`(?:{names})(?:=[^`]*)?`|\$\d+")

    assert {name: sorted(set(said.findall(text))) for name, text in english.items()} == {
        name: sorted(set(said.findall(text))) for name, text in japanese.items()
    }

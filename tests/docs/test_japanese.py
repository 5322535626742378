"""The Japanese pages match the English ones: the same headings, commands and parameters, in the same order."""

import re
from typing import Any

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
    return {name: re.sub("\0(\\d+)\0", lambda one: fences[int(one[1])], body) for name, body in found.items()}


@pytest.mark.parametrize(("japanese", "english"), PAGES.items())
def test_a_translation_has_the_same_sections(japanese: str, english: str) -> None:
    """In the same order, each with exactly the same code blocks, and the same template parameters and dollar amounts."""
    names = "|".join(sorted(template()["Parameters"], key=len, reverse=True))
    said = re.compile(rf"`(?:{names})(?:=[^`]*)?`|\$\d+")

    def kept(page: str) -> list[Any]:
        sections = _sections(page).items()
        return [(name, _FENCE.findall(text), sorted(set(said.findall(text)))) for name, text in sections]

    assert kept(english) == kept(japanese)

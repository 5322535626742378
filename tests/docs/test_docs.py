"""What the pages say is what the code does."""

import re
from pathlib import Path

import pytest

from tests.support import docs_tables, state_picture

ROOT = docs_tables.ROOT
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("events/*.md"), *ROOT.glob("tests/*.md")]
)


def relative(path: Path) -> str:
    """Name a page in test ids."""
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the names to which a page's headings can be linked, as GitHub makes them, and its own anchors."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("page", docs_tables.pages(), ids=relative)
def test_tables_follow_the_code(page: Path) -> None:
    """Tables of settings, codes, parameters and metrics are as the code has them (else: make docs)."""
    assert docs_tables.rendered(page.read_text()) == page.read_text()


def test_the_picture_of_states_follows_the_code() -> None:
    """The picture of a chunk's states shows the transitions that the code has (else: make docs)."""
    assert state_picture.picture() == state_picture.FILE.read_text()


@pytest.mark.parametrize("name", docs_tables.TABLES)
def test_every_table_stands_on_a_page(name: str) -> None:
    """No table of the code is left out of the docs."""
    marker = f"<!-- {name} -->"

    assert 1 == sum(page.read_text().count(marker) for page in docs_tables.pages())


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of this repository."""
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())

    assert [] == [target for target in targets if not (page.parent / target).exists()]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_fragments_name_a_heading(page: Path) -> None:
    """Every link to a part of a page names a heading, or an anchor, of that page."""
    links = re.findall(r"\]\((?!https?://)([^)#]*\.md)?#([^)]+)\)", page.read_text())

    assert [] == [
        f"{target}#{name}"
        for target, name in links
        if name not in anchors(page.parent / target if target else page)
    ]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_make_targets_exist(page: Path) -> None:
    """Every `make …` that a page tells people to run is a target of the Makefile."""
    named = set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE))
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set() == named - targets


def test_every_page_is_reached_from_the_readme() -> None:
    """The README links to every page under docs/."""
    readme = (ROOT / "README.md").read_text()

    assert [] == [page.name for page in ROOT.glob("docs/*.md") if f"docs/{page.name}" not in readme]

"""The docs match the code."""

import re
from pathlib import Path

import pytest

from chaos.trouble import Kind
from tests.support import docs_tables, state_picture

ROOT = docs_tables.ROOT
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("events/*.md"), *ROOT.glob("tests/*.md")]
)


def relative(path: Path) -> str:
    """Return a page's path for test ids."""
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: those that GitHub generates from headings, and explicit ones."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("page", docs_tables.pages(), ids=relative)
def test_tables_follow_the_code(page: Path) -> None:
    """Tables of settings, codes, parameters and metrics are up to date (else: make docs)."""
    assert docs_tables.rendered(page.read_text()) == page.read_text()


def test_the_picture_of_states_follows_the_code() -> None:
    """The diagram of a chunk's states shows the code's transitions (else: make docs)."""
    assert state_picture.picture() == state_picture.FILE.read_text()


@pytest.mark.parametrize("name", docs_tables.TABLES)
def test_every_table_is_on_a_page(name: str) -> None:
    """Every generated table is in the docs exactly once."""
    marker = f"<!-- {name} -->"

    assert 1 == sum(page.read_text().count(marker) for page in docs_tables.pages())


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_have_a_target(page: Path) -> None:
    """Every relative link names a file in this repository."""
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())

    assert [] == [target for target in targets if not (page.parent / target).exists()]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_fragments_name_a_heading(page: Path) -> None:
    """Every link with a fragment names a heading or an anchor of its page."""
    links = re.findall(r"\]\((?!https?://)([^)#]*\.md)?#([^)]+)\)", page.read_text())

    assert [] == [
        f"{target}#{name}"
        for target, name in links
        if name not in anchors(page.parent / target if target else page)
    ]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_make_targets_exist(page: Path) -> None:
    """Every `make …` in the docs is a target of the Makefile."""
    named = set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE))
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set() == named - targets


def test_the_readme_links_to_every_page() -> None:
    """The README links to every page under docs/."""
    readme = (ROOT / "README.md").read_text()

    assert [] == [page.name for page in ROOT.glob("docs/*.md") if f"docs/{page.name}" not in readme]


def test_the_readme_states_the_cost_of_ten_million_events() -> None:
    """The range in the README spans the lowest and highest totals in docs/performance.md."""
    totals = re.findall(
        r"^\| (?:\*\*total\*\*|total, .*?) \|.*$", (ROOT / "docs/performance.md").read_text(), re.MULTILINE
    )
    costs = [round(float(usd)) for line in totals for usd in re.findall(r"\d+\.\d\d", line)]
    said = re.search(r"\[\$(\d+) to \$(\d+)\]\(docs/performance.md#cost\)", (ROOT / "README.md").read_text())

    assert said is not None
    assert (min(costs), max(costs)) == (int(said[1]), int(said[2]))


@pytest.mark.parametrize(
    ("page", "said"), [("README.md", r"more than (\d+) kinds"), ("README.ja.md", r"(\d+)種類を超える")]
)
def test_the_readme_does_not_overstate_the_kinds_of_failure(page: str, said: str) -> None:
    """The fault-injection tests cover more kinds of failure than the README claims."""
    found = re.search(said, (ROOT / page).read_text())

    assert found is not None
    assert int(found[1]) < len(Kind)

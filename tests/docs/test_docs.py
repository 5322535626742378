"""The docs match the code."""

import re
import tomllib
from pathlib import Path

import pytest

from chaos.trouble import Kind
from ops.cost.monthly import cost_line
from tests.support import console_pages, docs_tables
from tests.support.dialects import EVENT_ROUTES
from tests.support.sam import template

ROOT = docs_tables.ROOT
PAGES = sorted(page for place in ("", "docs/**/", "events/", "tests/") for page in ROOT.glob(f"{place}*.md"))


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


def test_somebody_needs_each_parameter() -> None:
    """The template says for each of its parameters who needs it, and for no other."""
    assert template()["Metadata"]["Needed"].keys() == template()["Parameters"].keys()


@pytest.mark.parametrize("name", docs_tables.policies())
def test_policies_follow_the_code(name: str) -> None:
    """The policies that people attach are up to date (else: make docs), and each resource is an ARN, or an output to fill in."""
    text = docs_tables.policies()[name]

    assert text == (ROOT / "docs/policies" / name).read_text()
    assert [] == re.findall(r'"Resource": "(?!arn:|<|\*")[^"]*"', text)


def test_screenshots_follow_the_pages() -> None:
    """docs/images shows the pages as they are (else: make screenshots)."""
    assert console_pages.digest() == console_pages.DIGEST.read_text().strip()


@pytest.mark.parametrize("name", docs_tables.TABLES)
def test_every_table_is_on_a_page(name: str) -> None:
    """Every generated table is in the docs exactly once."""
    marker = f"<!-- {name} -->"

    assert 1 == sum(page.read_text().count(marker) for page in docs_tables.pages())


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_tables_and_headings_are_shown_as_such(page: Path) -> None:
    """A blank line would end a table, and a heading begins its own line after one."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    blocks = [block.splitlines() for block in re.split(r"\n{2,}", text)]
    tables = [block for block in blocks if block[:1] and block[0].startswith("|")]

    assert [] == [table[0] for table in tables if not re.fullmatch(r"[| :-]+", "".join(table[1:2]))]
    assert [] == re.findall(r".* ##+ .*|(?<=[^\n]\n)##+ .*", text)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_have_a_target(page: Path) -> None:
    """Every relative link names a file in this repository and, after `#`, a heading or an anchor of a page."""
    links = re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]+))?\)", page.read_text())
    targets = [(page.parent / (target or page.name), name) for target, name in links]

    assert [] == [
        f"{path}#{name}"
        for path, name in targets
        if not path.exists() or (name and path.suffix == ".md" and name not in anchors(path))
    ]


def test_pages_that_the_code_names_exist() -> None:
    """Every page, and every heading of one, that a message, a comment or an alarm names is there."""
    packages = ["benchmarks", "chaos", "client", "ingest", "local"]
    packages += ["ops", "release", "scaler", "shared", "worker"]
    texts = [path.read_text() for package in packages for path in ROOT.glob(f"{package}/**/*.py")]
    texts.append((ROOT / "template.yaml").read_text())
    named = {found for text in texts for found in re.findall(r"\b(docs/[\w/-]+\.md)(?:#([\w-]+))?", text)}

    assert len(named) > 20
    assert [] == [
        f"{page}#{name}"
        for page, name in sorted(named)
        if not (ROOT / page).exists() or (name and name not in anchors(ROOT / page))
    ]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_make_targets_exist(page: Path) -> None:
    """Every `make …` in the docs is a target of the Makefile."""
    named = set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE))
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set() == named - targets


def table_rows(page: str) -> list[str]:
    """Return the rows of a page's tables; of its section alone if a heading follows the page's name."""
    name, _, heading = page.partition("#")
    text = (ROOT / "docs" / name).read_text()
    if heading:
        text = re.split(r"^## ", text.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^\| .*\|$", text, re.MULTILINE)


@pytest.mark.parametrize(
    "page",
    [
        "internals/add-a-dialect.md",
        "internals/architecture.md#Life of a request",
        "internals/change-a-delivery-rule.md",
        "internals/delivery.md#Life of a batch",
    ],
)
def test_tables_name_code_that_exists(page: str) -> None:
    """Each file in these tables exists. Each name is in a file of its row or, if the row names none, of the row above."""
    wrong, files = [], list[Path]()
    rows = table_rows(page)
    assert rows
    for row in rows:
        quoted = re.findall(r"`([^`]+)`", row)
        paths = [ROOT / one for one in quoted if "/" in one and "NAME" not in one]
        wrong += [str(path.relative_to(ROOT)) for path in paths if not path.exists()]
        files = [path for path in paths if path.is_file()] or files
        known = {word for path in files for word in re.findall(r"\w+", path.read_text())}
        named = [one for one in quoted if re.fullmatch(r"[A-Za-z_][\w.]*(\(\))?", one)]
        wrong += [one for one in named if not known.issuperset(re.findall(r"\w+", one))]

    assert [] == wrong


OWN_ROUTES = {"/pixel.gif", "/v1/events"}
"""Routes that no client of Treasure Data uses."""
GENERAL = {f"test_{name}.py" for name in ("dialects", "fuzz", "openapi", "originals", "policy", "routes")}
"""Tests that hold for all dialects."""


@pytest.mark.parametrize("path", sorted({path for _, path in EVENT_ROUTES}))
def test_each_dialect_is_documented_and_has_tests_of_its_own(path: str) -> None:
    """Both pages name its route, and a file of tests sends requests to it (docs/internals/add-a-dialect.md)."""
    start = path.removesuffix("/shop/pageviews")
    named = f"`{start}" if start else "/{database}/{table}`"
    pages = {"http.md"} | ({"clients.md"} if path not in OWN_ROUTES else set())
    tests = {one.name for one in ROOT.glob("tests/ingest/*.py") if (start or "/shop/") in one.read_text()}

    assert {True} == {named in (ROOT / "docs" / page).read_text().replace("`POST /", "`/") for page in pages}
    assert tests - GENERAL


def test_contributing_names_the_mutated_modules() -> None:
    """CONTRIBUTING.md names every module that `make mutate` changes, and no other."""
    modules = tomllib.loads((ROOT / "tests/mutation/targets.toml").read_text())["modules"]
    (said,) = re.findall(r"^\| `make mutate` .*$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)

    assert set(modules) == set(re.findall(r"`(\w+/\w+\.py)`", said))


def test_the_readme_links_to_every_page() -> None:
    """The README links to every page under docs/."""
    readme = (ROOT / "README.md").read_text()

    assert [] == [name for page in ROOT.glob("docs/**/*.md") if (name := relative(page)) not in readme]


def test_the_readme_and_the_commands_state_the_cost_of_ten_million_events() -> None:
    """The range in the README spans the costs of ten million events in docs/costs.md; commands show that of requests with ten."""
    (row,) = re.findall(r"^\| 10,000,000 \|.*$", (ROOT / "docs/costs.md").read_text(), re.MULTILINE)
    costs = [round(float(usd)) for usd in re.findall(r"\$(\d+\.\d\d)", row)]
    said = re.search(r"\[\$(\d+) to \$(\d+)\]\(docs/costs.md\)", (ROOT / "README.md").read_text())

    assert said is not None
    assert (min(costs), max(costs)) == (int(said[1]), int(said[2]))
    assert f"${costs[1]} with 10 million events" in cost_line({}, "us-east-1")


@pytest.mark.parametrize(
    ("page", "said"), [("README.md", r"more than (\d+) kinds"), ("README.ja.md", r"(\d+)種類を超える")]
)
def test_the_readme_does_not_overstate_the_kinds_of_failure(page: str, said: str) -> None:
    """The fault-injection tests cover more kinds of failure than the README claims."""
    found = re.search(said, (ROOT / page).read_text())

    assert found is not None
    assert int(found[1]) < len(Kind)

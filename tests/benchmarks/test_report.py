"""How results are drawn and written into the docs."""

from xml.etree import ElementTree as ET

import pytest

from benchmarks.chart import Bar, Group, bars
from benchmarks.report import with_section

SVG = "{http://www.w3.org/2000/svg}"
PAGE = "# Page\n\n<!-- bench-one -->\nold\n<!-- end -->\n\nbetween\n\n<!-- bench-two -->\n<!-- end -->\n"


def test_only_the_section_is_replaced() -> None:
    """Only the text between a benchmark's markers is replaced, and writing it again changes nothing."""
    once = with_section(PAGE, "one", r"new \1")

    assert once == PAGE.replace("old\n", "\nnew \\1\n\n")
    assert once == with_section(once, "one", r"new \1")


def test_a_page_without_the_section_is_an_error() -> None:
    """Results for a page without the benchmark's markers raise ValueError."""
    with pytest.raises(ValueError, match="0 places for bench-three"):
        with_section(PAGE, "three", "new")


def test_each_benchmark_has_a_section() -> None:
    """Every benchmark has a section in docs/internals/performance.md."""
    from benchmarks.__main__ import BENCHMARKS
    from benchmarks.report import PAGE as REPORT

    page = REPORT.read_text()

    assert [] == [name for name in BENCHMARKS if f"<!-- bench-{name} -->" not in page]


def test_bars_are_proportional_to_their_values() -> None:
    """Within a group, the lengths of bars are proportional to their values; labels are escaped."""
    both = [Bar("<us>", 1, "1 ms", ours=True), Bar("them", 4, "4 ms")]
    drawn = ET.fromstring(bars("T", [Group("A & B", both)]))

    ours, theirs = [one for one in drawn.iter(f"{SVG}rect") if one.get("class") in {"ours", "other"}]
    assert 4.0 == pytest.approx(float(theirs.attrib["width"]) / float(ours.attrib["width"]), rel=0.01)
    assert {"A & B", "<us>", "4 ms"} < {one.text for one in drawn.iter(f"{SVG}text")}

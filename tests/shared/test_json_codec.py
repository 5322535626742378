"""JSON is parsed and serialized with all digits, and no input raises an undocumented error."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import json_codec
from shared.errors import InvalidJsonError, TooDeepError
from tests.support import json_values, tools


def standard(text: bytes) -> object:
    """Parse with the standard library, but reject NaN and Infinity, which are not JSON."""
    return json.loads(text.decode(), parse_constant=lambda _name: int("no constant"))


def nested(levels: int, inside: str = "1") -> bytes:
    """Return this many nested arrays around a value."""
    return ("[" * levels + inside + "]" * levels).encode()


alphabet = st.sampled_from('[]{}",:0123456789-+.eE \\undtrfalsNI')
written_values = json_values.values.map(lambda value: json.dumps(value, allow_nan=True).encode())


@given(st.binary(max_size=60) | st.text(alphabet).map(str.encode) | written_values)
def test_agrees_with_the_standard_library(text: bytes) -> None:
    """Bytes either parse to the standard library's value, with its types, or raise InvalidJsonError."""
    try:
        value = json_codec.parse(text)
    except InvalidJsonError:
        with pytest.raises((ValueError, RecursionError)):
            standard(text)
    else:
        assert repr(standard(text)) == repr(value)


def test_agrees_with_the_json_test_suite() -> None:
    """Its valid documents have the standard library's value, and its invalid ones are rejected."""
    cases = tools.data("json-test-suite/data/parsing.js")
    for name, text in ((case["name"], case["input"].encode(errors="surrogatepass")) for case in cases):
        if name[0] == "y":
            assert repr(standard(text)) == repr(json_codec.parse(text)), name
        elif name[0] == "n":
            with pytest.raises(InvalidJsonError):
                json_codec.parse(text)


NUMBERS = "9223372036854775807 -9223372036854775809 18446744073709551615 18446744073709551616"


@pytest.mark.parametrize("digits", [*NUMBERS.split(), "1234567890" * 3, "9" * 4000])
def test_keeps_all_digits(digits: str) -> None:
    """Integers of any size keep their digits. Beyond 4,000 they become text, because Python does not convert them."""
    assert int(digits) == json_codec.parse(digits.encode())
    assert "9" * 4001 == json_codec.parse(b"9" * 4001)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"a": "\xed\xa0\xbd\xed\xb8\x80"}', {"a": "\U0001f600"}),
        (b'{"\xed\xa0\xbd\xed\xb8\x80": "\xc3\xa9\xf0\x9f\x98\x80"}', {"\U0001f600": "\u00e9\U0001f600"}),
        (b'"\xed\xa0\x80"', "\ufffd"),
        (b'"a\xed\xb8\x80\xed\xa0\xbdb"', "a\ufffd\ufffdb"),
        (b'"\xef\xbb\xbf\xed\xa0\xbd"', "\ufeff\ufffd"),
    ],
)
def test_parses_surrogates_in_utf_8(text: bytes, expected: object) -> None:
    """A pair (CESU-8) becomes its character, and a lone surrogate becomes U+FFFD."""
    assert expected == json_codec.parse(text)


@pytest.mark.parametrize("inside", ["1", "123456789012345678901234567890", r'"\ud800]"', "[] , {}"])
def test_survives_extreme_nesting(inside: str) -> None:
    """Of a value nested 100,000 levels deep enough is kept for it to be too deep. What is beside it is complete."""
    deep, other = nested(100_000, inside), rb'{"]\"[": [1], "a": "[\\"}'
    text = b'{"x": [%b, {}], "events": [%b, {"a":%b, "b": 1} ,%b]}' % (deep, other, deep, other)

    value = json_codec.parse(text)

    first, second, third = value["events"]
    assert [json.loads(other)] * 2 == [first, third]
    assert ({"a", "b"}, 1, {}) == (second.keys(), second["b"], value["x"][1])
    with pytest.raises(TooDeepError):
        json_codec.dump(second["a"])
    assert [other, b'{"a":%b, "b": 1}' % deep, other] == json_codec.items(text, "events")


@pytest.mark.parametrize(
    ("start", "end", "character"), [("[", "", 100_000), ('{"a":', "", 500_000), ("[", "]", 200_000)]
)
def test_rejects_extreme_nesting_that_does_not_end_well(start: str, end: str, character: int) -> None:
    """The message says where the document ends, or should have ended."""
    text = start * 100_000 + end * 100_000 + end

    with pytest.raises(InvalidJsonError) as raised:
        json_codec.parse(text.encode())

    assert str(raised.value).endswith(f"(char {character})")


def plain(value: object) -> object:
    """Return the value with the documented replacements."""
    match value:
        case str():
            return re.sub("[\ud800-\udfff]", "\ufffd", value)
        case float():
            return value if math.isfinite(value) else None
        case list():
            return [plain(item) for item in value]
        case dict():
            return {plain(name): plain(item) for name, item in value.items()}
    return value


@given(json_values.values)
def test_values_round_trip(value: object) -> None:
    """Only lone surrogates (to U+FFFD) and non-finite numbers (to null) change."""
    assert json.loads(json.dumps(plain(value))) == json.loads(json_codec.dump(value))


@pytest.mark.parametrize("inside", [[1], [10**30], ["\ud800"], [], {}])
def test_writes_up_to_254_levels(inside: object) -> None:
    """The limit does not depend on which serializer the content needs, and an empty array is a level too."""
    value = json.loads(nested(json_codec.MAX_DEPTH - 1, json.dumps(inside)))

    assert json_codec.dump(value).startswith("[" * (json_codec.MAX_DEPTH - 1))
    with pytest.raises(TooDeepError):
        json_codec.dump([value])


spaces = st.text(" \t\n\r", max_size=2)


@st.composite
def written(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Draw a document with an array, and the text of each of the array's items."""

    def text_of(value: object) -> bytes:
        separators = draw(st.sampled_from([(",", ":"), (" ,\t", ": "), ("\n,", "\r:")]))
        escaped = draw(st.booleans())
        return json.dumps(value, separators=separators, ensure_ascii=escaped, allow_nan=False).encode()

    items = [text_of(value) for value in draw(st.lists(json_values.finite, max_size=5))]
    others = draw(st.dictionaries(st.sampled_from(["a", "b", "events "]), json_values.finite, max_size=3))
    members = [b'"%b":%b' % (name.encode(), text_of(value)) for name, value in others.items()]
    space = draw(spaces).encode()
    array = b"[" + space + (b"," + space).join(item + space for item in items) + b"]"
    members.insert(draw(st.integers(0, len(members))), b'"ev\\u0065nts"' + space + b":" + space + array)
    return space + b"{" + space + (space + b"," + space).join(members) + space + b"}" + space, items


@given(written())
def test_items_are_found_byte_for_byte(document: tuple[bytes, list[bytes]]) -> None:
    """The sender's white space, escapes and numbers do not matter."""
    text, items = document

    assert items == json_codec.items(text, "events")


@pytest.mark.parametrize(
    ("text", "items"),
    [
        (b'{"events":[1.50,1e2],"events":[ 1E+2 , 00.1 ]}'.replace(b"00.1", b"0.10"), [b"1E+2", b"0.10"]),
        (b'{"events":[1],"events":2}', []),
        (b'{"events":[]}', []),
        (b"{}", []),
        ('{"é":"]}","events":["é", {"ü":[1,2]}]}'.encode(), ['"é"'.encode(), '{"ü":[1,2]}'.encode()]),
        (b'{"events":[123456789012345678901234567890123]}', [b"123456789012345678901234567890123"]),
    ],
)
def test_items_come_from_the_last_array_of_the_name(text: bytes, items: list[bytes]) -> None:
    """The parser also uses the last value of a repeated name."""
    assert items == json_codec.items(text, "events")

"""JSON parsing and serialization that keep all digits and tolerate odd input.

orjson handles ordinary input. The standard library handles what RFC 8259 allows and orjson does not: integers beyond 64
bits (orjson rounds them to floats), numbers beyond a float's range, and escaped lone surrogates (orjson rejects both).
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import orjson

from shared.errors import InvalidJsonError, TooDeepError

MAX_DEPTH = 254
"""Maximum nesting of one value."""

# of a document that is too deep to parse: enough for its values to be too deep still
_KEPT_LEVELS = 2 * MAX_DEPTH
_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_20_DIGITS, _NEGATIVE_19_DIGITS = b"0" * 20, b"-" + b"0" * 19
_SURROGATES = re.compile("[\ud800-\udfff]")
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
_NOT_SPACE = re.compile("[^ \t\n\r]")
_SCANNER = json.JSONDecoder(parse_int=str, parse_float=str)
_MAX_INTEGER_DIGITS = 4000  # CPython's limit is 4,300


def parse(text: bytes) -> Any:
    """Parse a JSON document in UTF-8.

    A surrogate pair in UTF-8 (CESU-8), as td-js-sdk 1 and 2 encode characters beyond the BMP, is read as the character; a
    lone surrogate becomes U+FFFD. Integers keep all digits (as a string beyond 4,000 digits). The last value of a repeated
    name wins. `NaN` and `Infinity` are invalid. Numbers beyond a float's range become infinite. A value that
    is nested thousands of levels deep loses its inner ones; it stays deeper than MAX_DEPTH.

    Raises:
        InvalidJsonError: the text is not UTF-8 or not JSON.
    """
    zeros = text.translate(_AS_ZEROS)  # finds long numbers in linear time
    if _20_DIGITS in zeros or _NEGATIVE_19_DIGITS in zeros:  # maybe beyond 64 bits
        return _parse_slowly(text)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _parse_slowly(text)


def dump(value: Any) -> str:
    """Serialize a value as compact JSON; lone surrogates become U+FFFD, non-finite numbers null.

    Raises:
        TooDeepError: the value is nested deeper than MAX_DEPTH.
    """
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # an integer beyond 64 bits, a lone surrogate, or too deep
        return json.dumps(_plain(value, MAX_DEPTH), ensure_ascii=False, separators=(",", ":"))


def items(text: bytes, name: str) -> list[bytes]:
    """Return the items of an array, each byte for byte as it was written.

    Args:
        text: an object or an array that `parse` accepts.
        name: the object's member that is the array; if it is repeated, the last one counts.
    """
    source, starts = _members(text)
    start = starts.get(name, starts[None])
    return [text[begin:end] for begin, end in _items(source, start)]


@lru_cache(maxsize=1)  # a body may have twenty arrays with items to find
def _members(text: bytes) -> tuple[str, Mapping[str | None, int]]:
    """Return a document, a character for each byte, and where the values of its members begin; that of None is its own."""
    source = text.decode("latin-1")
    try:
        return source, _starts(source)
    except RecursionError:
        source = _shallow(source)
        return source, _starts(source)


def _starts(source: str) -> dict[str | None, int]:
    position = _next(source, 0)
    starts: dict[str | None, int] = {None: position}
    if source[position : position + 1] == "[":
        _SCANNER.raw_decode(source, position)  # to know whether it is too deep
        return starts
    position += 1
    while source[position := _next(source, position)] != "}":
        member, end = _SCANNER.raw_decode(source, position)
        starts[member] = start = _next(source, _next(source, end) + 1)
        position = _next(source, _SCANNER.raw_decode(source, start)[1])
        position += source[position] == ","
    return starts


def _items(source: str, start: int) -> Iterator[tuple[int, int]]:
    position = start + 1
    while source[start] == "[" and source[position := _next(source, position)] != "]":
        end = _SCANNER.raw_decode(source, position)[1]
        yield position, end
        position = _next(source, end)
        position += source[position] == ","


def _next(source: str, position: int) -> int:
    """Return the position of the next character that is not white space."""
    found = _NOT_SPACE.search(source, position)
    return found.start() if found else len(source)


def without_surrogates(text: str) -> str:
    """Replace each lone surrogate, which UTF-8 cannot encode, with U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


def _parse_slowly(text: bytes) -> Any:
    try:
        source = _decode(text)
        try:
            return _load(source)
        except RecursionError:
            return _load(_shallow(source))
    except ValueError as error:
        raise InvalidJsonError(str(error)) from None


def _load(source: str) -> Any:
    return json.loads(source, parse_int=_integer, parse_constant=_refuse_constant)


def _shallow(source: str) -> str:
    """Return JSON with spaces in place of what arrays and objects at _KEPT_LEVELS contain, which is not checked.

    It takes linear time and no recursion. Everything else keeps its position.
    """
    pieces = []
    level = kept = start = 0  # `start` is where the array or object at _KEPT_LEVELS begins
    for found in _STRING_OR_BRACKET.finditer(source):
        mark = found[0]
        if mark in "[{":
            level += 1
            if level == _KEPT_LEVELS:
                start = found.end()
        elif mark in "]}":
            if level == _KEPT_LEVELS:
                end = found.start()
                pieces += [source[kept:start], " " * (end - start)]
                kept = end
            level -= 1
    if level >= _KEPT_LEVELS:  # it never ends
        return "".join([*pieces, source[kept:start]]).ljust(len(source))
    return "".join([*pieces, source[kept:]])


def _decode(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return (
            text.decode("utf-8", "surrogatepass")
            .encode("utf-16", "surrogatepass")
            .decode("utf-16", "replace")
        )


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else digits


def _refuse_constant(name: str) -> None:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (list, dict)) and not depth:
        raise TooDeepError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, list):
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {without_surrogates(name): _plain(item, depth - 1) for name, item in value.items()}
    return value

"""How JSON text becomes values and nested values become JSON text, without losing digits or raising on odd input.

orjson does the ordinary work. What RFC 8259 allows and orjson does not keep is left to the standard library: integers
beyond 64 bits (orjson rounds them to floats), numbers beyond a float's range and escaped lone surrogates (orjson
refuses them).
"""

import json
import math
import re
from typing import Any

import orjson

from shared.errors import InvalidJsonError, TooDeepError

MAX_DEPTH = 254
"""Levels of nesting that one value may have."""

_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_MAYBE_BEYOND_64_BITS = (b"0" * 20, b"-" + b"0" * 19)
_SURROGATES = re.compile("[\ud800-\udfff]")
_MAX_INTEGER_DIGITS = 4000  # CPython refuses to convert more than 4,300


def parse(text: bytes) -> Any:
    """Return the value of a JSON document in UTF-8.

    Integers keep all their digits (beyond 4,000 digits as a string), a repeated name counts once with its last
    value, `NaN` and `Infinity` are refused, numbers beyond a float's range become infinite.

    Raises:
        InvalidJsonError: the text is not UTF-8, not JSON, or nested beyond some thousand levels.
    """
    zeros = text.translate(_AS_ZEROS)  # finds long numbers in linear time, whatever the text
    if any(digits in zeros for digits in _MAYBE_BEYOND_64_BITS):
        return _parse_slowly(text)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _parse_slowly(text)


def dump(value: Any) -> str:
    """Return a nested value as compact JSON text: lone surrogates become U+FFFD, non-finite numbers null.

    Raises:
        TooDeepError: it is nested deeper than MAX_DEPTH.
    """
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # an integer beyond 64 bits, a lone surrogate, or too deep
        return json.dumps(_plain(value, MAX_DEPTH), ensure_ascii=False, separators=(",", ":"))


def without_surrogates(text: str) -> str:
    """Return the text with each lone surrogate, which UTF-8 cannot carry, replaced by U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


def _parse_slowly(text: bytes) -> Any:
    try:
        return json.loads(text.decode(), parse_int=_integer, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidJsonError(str(error)) from None


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else digits


def _refuse_constant(name: str) -> None:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _plain(value: Any, depth: int) -> Any:
    if depth < 0:
        raise TooDeepError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {without_surrogates(name): _plain(item, depth - 1) for name, item in value.items()}
    return value

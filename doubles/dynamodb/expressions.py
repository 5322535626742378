"""The part of DynamoDB's expression language that the ledger uses, for top-level attributes.

- conditions and filters: an attribute compared with a value, `attribute_exists` and `attribute_not_exists`, joined by
  `AND` and `OR`
- key conditions: comparisons of key attributes, joined by `AND`
- updates: `SET` attributes to values, `REMOVE`, and `ADD` numbers
- one PartiQL statement: `INSERT` of a whole item

Parsed expressions are cached by their text. Items are in wire form, `{"name": {"S": "text"}}`. The functions raise ValueError,
with DynamoDB's message, for a reserved word, and NotImplementedError for everything that is not in this list.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from moto.dynamodb.parsing.reserved_keywords import ReservedKeywords

Value = dict[str, Any]
Item = dict[str, Value]
Names = Mapping[str, str]
Values = Mapping[str, Value]
Condition = Callable[[Item, Names, Values], bool]
KeyTerm = tuple[str, str, str]
"""One comparison of a key condition: an attribute, the comparator, and the placeholder of a value."""

_RESERVED_WORDS = frozenset(ReservedKeywords.get_reserved_keywords())

_COMPARATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_INSERT = re.compile(r"\s*INSERT\s+INTO\s+\"([^\"]+)\"\s+VALUE\s+\{(.*)\}\s*", re.IGNORECASE | re.DOTALL)
_MEMBER = re.compile(r"\s*'([^']+)'\s*:\s*\?\s*(?:,|$)")
_COMPARISON = r"(#?\w+) *(<=|>=|[=<>]) *(:\w+)"


class Update(NamedTuple):
    """An update: attribute and value of each assignment and addition, and the attributes to remove, as named in the text."""

    sets: list[tuple[str, str]]
    removes: list[str]
    adds: list[tuple[str, str]]


class Parsed[T](NamedTuple):
    """An expression and the placeholders that it uses."""

    expression: T
    placeholders: frozenset[str]


def resolve(name: str, names: Names) -> str:
    """Return the attribute that a name or a `#` placeholder in an expression refers to."""
    return names[name] if name[0] == "#" else name


@lru_cache(maxsize=1024)
def condition(text: str, kind: str) -> Parsed[Condition]:
    """Parse a condition or filter expression."""
    alternatives = [
        [_term(term, text) for term in alternative.split(" AND ")] for alternative in text.split(" OR ")
    ]

    def holds(item: Item, names: Names, values: Values) -> bool:
        return any(all(term(item, names, values) for term in terms) for terms in alternatives)

    return _parsed(holds, text, kind)


@lru_cache(maxsize=1024)
def key_condition(text: str) -> Parsed[list[KeyTerm]]:
    """Parse a key condition."""
    terms = [_groups(_COMPARISON, term, text) for term in text.split(" AND ")]
    return _parsed(terms, text, "KeyConditionExpression")


@lru_cache(maxsize=1024)
def update(text: str) -> Parsed[Update]:
    """Parse an update expression."""
    before, *clauses = re.split(r"\b(SET|REMOVE|ADD) ", text)
    bodies = dict(zip(clauses[::2], clauses[1::2], strict=True))
    if before.strip() or not bodies or len(bodies) < len(clauses) // 2:
        raise _unknown(text)
    assigned, removed, added = (
        bodies[clause].split(",") if clause in bodies else [] for clause in ("SET", "REMOVE", "ADD")
    )
    sets = [_groups(r"(#?\w+) *= *(:\w+)", part, text) for part in assigned]
    removes = [_groups(r"(#?\w+)", part, text)[0] for part in removed]
    adds = [_groups(r"(#?\w+) +(:\w+)", part, text) for part in added]
    return _parsed(Update(sets, removes, adds), text, "UpdateExpression")


def parse_insert(statement: str, parameters: Sequence[Value]) -> tuple[str, Item]:
    """Return the table and the item of `INSERT INTO "table" VALUE {'name': ?, …}`, taking values from the parameters.

    Raises:
        NotImplementedError: the statement is not an INSERT.
        ValueError: the statement is malformed, or has more or fewer question marks than parameters.
    """
    insert = _INSERT.fullmatch(statement)
    if insert is None:
        raise _unknown(statement)
    table, members = insert[1], insert[2].strip()
    if _MEMBER.sub("", members):
        raise ValueError("Statement wasn't well formed, can't be processed")
    names = _MEMBER.findall(members)
    return table, dict(zip(names, parameters, strict=True))


def _groups(pattern: str, text: str, whole: str) -> tuple[Any, ...]:
    """Match a part of an expression against a pattern, and return its groups."""
    match = re.fullmatch(pattern, text.strip())
    if match is None:
        raise _unknown(whole)
    return match.groups()


def _term(text: str, whole: str) -> Condition:
    if match := re.fullmatch(r" *attribute_(not_)?exists *\( *(#?\w+) *\) *", text):
        wanted, name = not match[1], match[2]
        return lambda item, names, _values: (resolve(name, names) in item) == wanted
    name, sign, value = _groups(_COMPARISON, text, whole)
    return lambda item, names, values: _compare(item.get(resolve(name, names)), sign, values[value])


def _compare(left: Value | None, sign: str, right: Value) -> bool:
    """Return whether `left sign right` holds. It never does for values that cannot be compared."""
    if left is None:
        return False
    ((kind, one),), ((other_kind, other),) = left.items(), right.items()
    if kind == other_kind == "N":
        one, other = Decimal(one), Decimal(other)
    return kind == other_kind and (sign == "=" or kind in ("S", "N", "B")) and _COMPARATORS[sign](one, other)


def _parsed[T](expression: T, text: str, kind: str) -> Parsed[T]:
    words = re.findall(r"[:#]?\w+", text)
    for word in words:
        if word.upper() in _RESERVED_WORDS and word not in ("SET", "ADD", "AND", "OR"):
            raise ValueError(
                f"Invalid {kind}: Attribute name is a reserved keyword; reserved keyword: {word}"
            )
    return Parsed(expression, frozenset(word for word in words if word[0] in "#:"))


def _unknown(text: str) -> NotImplementedError:
    return NotImplementedError(f"the DynamoDB double does not support the expression {text!r}")

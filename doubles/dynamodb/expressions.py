"""The part of DynamoDB's expression language that the ledger uses, on whole attributes.

- conditions and filters: comparisons, `attribute_exists` and `attribute_not_exists`, joined by `AND` and `OR`
- key conditions: comparisons of key attributes, joined by `AND`
- updates: `SET` with a value, an attribute, `if_not_exists` or the sum of two of these, and `REMOVE`

Expressions are compiled once per text to closures over an item, the request's names and its values. Items are in wire
form, `{"name": {"S": "text"}}`. Raises ValueError, with DynamoDB's message, for a reserved word or an operand that
DynamoDB rejects, and NotImplementedError for everything that is not in this list.
"""

import operator
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from doubles.dynamodb.reserved_words import RESERVED_WORDS

Value = dict[str, Any]
Item = dict[str, Value]
Names = Mapping[str, str]
Values = Mapping[str, Value]
Condition = Callable[[Item, Names, Values], bool]
Operand = Callable[[Item, Names, Values], Value | None]

_ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Update(NamedTuple):
    """A compiled update: the attributes that it sets and removes, as the text names them."""

    sets: list[tuple[str, Operand]]
    removes: list[str]


class KeyTerm(NamedTuple):
    """One comparison of a key condition: an attribute with the value of a placeholder."""

    name: str
    operator: str
    value: str


class Compiled[T](NamedTuple):
    """An expression and the placeholders that it uses."""

    expression: T
    names: frozenset[str]
    values: frozenset[str]


def compare_key(value: Value) -> Any:
    """Return what orders a scalar among values of its type."""
    ((kind, raw),) = value.items()
    return Decimal(raw) if kind == "N" else raw


def resolve(name: str, names: Names) -> str:
    """Return the attribute that a name or a `#` placeholder of an expression means."""
    return names[name] if name[0] == "#" else name


@lru_cache(maxsize=1024)
def condition(text: str, kind: str = "ConditionExpression") -> Compiled[Condition]:
    """Compile a condition or filter expression."""
    alternatives = [
        [_term(term, text) for term in alternative.split(" AND ")] for alternative in text.split(" OR ")
    ]

    def holds(item: Item, names: Names, values: Values) -> bool:
        return any(all(term(item, names, values) for term in terms) for terms in alternatives)

    return _compiled(holds, text, kind)


@lru_cache(maxsize=1024)
def key_condition(text: str) -> Compiled[list[KeyTerm]]:
    """Compile a key condition."""
    comparison = r"(#?\w+) *(<=|>=|[=<>]) *(:\w+)"
    terms = [KeyTerm(*_parts(comparison, term, text)) for term in text.split(" AND ")]
    return _compiled(terms, text, "KeyConditionExpression")


@lru_cache(maxsize=1024)
def update(text: str) -> Compiled[Update]:
    """Compile an update expression."""
    sets: list[tuple[str, Operand]] = []
    removes: list[str] = []
    before, *clauses = re.split(r"\b(SET|REMOVE) ", text)
    if before.strip() or not clauses or len(set(clauses[::2])) < len(clauses[::2]):
        raise _unknown(text)
    for clause, body in zip(clauses[::2], clauses[1::2], strict=True):
        for part in re.split(r",(?![^(]*\))", body):  # a comma within parentheses separates nothing
            name, assigned = _parts(r"(#?\w+)(?: *= *(.+))?", part, text)
            if bool(assigned) != (clause == "SET"):
                raise _unknown(text)
            if assigned:
                sets.append((name, _sum(assigned, text)))
            else:
                removes.append(name)
    return _compiled(Update(sets, removes), text, "UpdateExpression")


def _parts(pattern: str, text: str, whole: str) -> tuple[Any, ...]:
    """Return what the groups of a pattern match in a part of an expression."""
    match = re.fullmatch(pattern, text.strip())
    if match is None:
        raise _unknown(whole)
    return match.groups()


def _term(text: str, whole: str) -> Condition:
    if match := re.fullmatch(r" *attribute_(not_)?exists *\( *(#?\w+) *\) *", text):
        wanted, name = not match[1], match[2]
        return lambda item, names, _values: (resolve(name, names) in item) == wanted
    one, sign, other = _parts(r"([:#]?\w+) *(<>|<=|>=|[=<>]) *([:#]?\w+)", text, whole)
    left, right = _operand(one, whole), _operand(other, whole)
    return lambda item, names, values: _compare(left(item, names, values), sign, right(item, names, values))


def _compare(left: Value | None, sign: str, right: Value | None) -> bool:
    """Return whether `left sign right` holds. It never does for values that cannot be ordered."""
    if left is None or right is None:
        return sign == "<>"
    ((kind, one),), ((other_kind, other),) = left.items(), right.items()
    if kind == other_kind == "N":
        one, other = Decimal(one), Decimal(other)
    if sign in ("=", "<>"):
        return (kind == other_kind and bool(one == other)) == (sign == "=")
    return kind == other_kind and kind in ("S", "N", "B") and _ORDERINGS[sign](one, other)


def _sum(text: str, whole: str) -> Operand:
    """Compile what an attribute is set to."""
    first, sign, second = _parts(r"([^+-]*[^+ -]) *([+-]?) *(.*)", text, whole)
    left = _present(_operand(first, whole))
    if not sign:
        return left
    right = _present(_operand(second, whole))

    def total(item: Item, names: Names, values: Values) -> Value:
        one, other = left(item, names, values), right(item, names, values)
        if "N" not in one or "N" not in other:
            raise ValueError("Invalid UpdateExpression: Incorrect operand type for operator or function")
        amount = Decimal(other["N"])
        return {"N": str(Decimal(one["N"]) + (amount if sign == "+" else -amount))}

    return total


def _present(operand: Operand) -> Callable[[Item, Names, Values], Value]:
    def present(item: Item, names: Names, values: Values) -> Value:
        value = operand(item, names, values)
        if value is None:
            raise ValueError("The provided expression refers to an attribute that does not exist in the item")
        return value

    return present


def _operand(text: str, whole: str) -> Operand:
    pattern = r"if_not_exists *\( *(#?\w+) *, *(:\w+) *\)|([:#]?\w+)"
    attribute, default, plain = _parts(pattern, text, whole)
    if attribute:
        return lambda item, names, values: item.get(resolve(attribute, names)) or values[default]
    if plain[0] == ":":
        return lambda _item, _names, values: values[plain]
    return lambda item, names, _values: item.get(resolve(plain, names))


def _compiled[T](expression: T, text: str, kind: str) -> Compiled[T]:
    words = re.findall(r"[:#]?\w+", text)
    keywords = {"SET", "REMOVE", "AND", "OR"}
    for word in words:
        if word.upper() in RESERVED_WORDS and word not in keywords:
            raise ValueError(
                f"Invalid {kind}: Attribute name is a reserved keyword; reserved keyword: {word}"
            )
    names = frozenset(word for word in words if word[0] == "#")
    return Compiled(expression, names, frozenset(word for word in words if word[0] == ":"))


def _unknown(text: str) -> NotImplementedError:
    return NotImplementedError(f"the DynamoDB double does not know the expression {text!r}")

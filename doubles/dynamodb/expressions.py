"""The part of DynamoDB's expression language that the ledger uses, on whole attributes.

- conditions and filters: comparisons, `attribute_exists`, `attribute_not_exists`, `AND`, `OR`, `NOT`, parentheses
- key conditions: `hash = :h`, or that `AND range` compared with one value
- updates: `SET`, with `+`, `-` and `if_not_exists`, and `REMOVE`

Expressions are compiled once per text to closures over an item, the call's names and its values. Items are in wire
form, `{"name": {"S": "text"}}`. Raises ValueError, with DynamoDB's message, for what DynamoDB rejects, and
NotImplementedError for what only this double does not know.
"""

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

_TOKEN = re.compile(r"\s*(<>|<=|>=|[=<>(),+\-.\[\]]|[:#]?[A-Za-z0-9_]+)\s*")
_COMPARATORS = {"=", "<>", "<", "<=", ">", ">="}
_ORDERED = {"S", "N", "B"}
_NOT_IMPLEMENTED = {
    *("BETWEEN", "IN", "ADD", "DELETE", ".", "["),
    *("ATTRIBUTE_TYPE", "BEGINS_WITH", "CONTAINS", "SIZE", "LIST_APPEND"),
}


class Update(NamedTuple):
    """A compiled update: the attributes that it sets and removes, as the text names them."""

    sets: tuple[tuple[str, Operand], ...]
    removes: tuple[str, ...]


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


def number(text: str) -> int | Decimal:
    """Return a wire number's value."""
    try:
        return int(text)
    except ValueError:
        return Decimal(text)


def compare_key(value: Value) -> Any:
    """Return what orders a scalar among values of its type."""
    ((kind, raw),) = value.items()
    return number(raw) if kind == "N" else raw


def resolve(name: str, names: Names) -> str:
    """Return the attribute that a name or a `#` placeholder of an expression means."""
    return names[name] if name[0] == "#" else name


def _compare(left: Value | None, operator: str, right: Value | None) -> bool:
    """Return whether `left operator right` holds. It never does for values that cannot be ordered."""
    if left is None or right is None:
        return operator == "<>"
    ((kind, one),), ((other_kind, other),) = left.items(), right.items()
    if kind == other_kind == "N":
        one, other = number(one), number(other)
    if operator in ("=", "<>"):
        return (kind == other_kind and bool(one == other)) == (operator == "=")
    if kind != other_kind or kind not in _ORDERED:
        return False
    match operator:
        case "<":
            return bool(one < other)
        case "<=":
            return bool(one <= other)
        case ">":
            return bool(one > other)
    return bool(one >= other)


class _Parser:
    """A recursive descent over the tokens of one expression."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        self.tokens: list[str] = []
        self.at = 0
        self.names: set[str] = set()
        self.values: set[str] = set()
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self.error(f'Syntax error; token: "{text[position]}"')
            self.tokens.append(match[1])
            position = match.end()

    def error(self, message: str) -> ValueError:
        return ValueError(f"Invalid {self.kind}: {message}")

    def syntax_error(self, token: str) -> Exception:
        if token.upper() in _NOT_IMPLEMENTED:
            return NotImplementedError(f"the DynamoDB double does not know {token}")
        return self.error(f'Syntax error; token: "{token or "<EOF>"}"')

    def compiled[T](self, expression: T) -> Compiled[T]:
        """Return the expression after its last token."""
        if self.at < len(self.tokens):
            raise self.syntax_error(self.peek())
        return Compiled(expression, frozenset(self.names), frozenset(self.values))

    def peek(self, ahead: int = 0) -> str:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def accept(self, word: str) -> bool:
        found = self.peek().upper() == word
        self.at += found
        return found

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise self.syntax_error(self.peek())

    def name(self) -> str:
        token = self.take()
        if not re.fullmatch(r"#?[A-Za-z0-9_]+", token) or self.peek() == "(":
            raise self.syntax_error(token)
        if token[0] == "#":
            self.names.add(token)
        elif token.upper() in RESERVED_WORDS:
            raise self.error(f"Attribute name is a reserved keyword; reserved keyword: {token}")
        return token

    def placeholder(self) -> str:
        token = self.take()
        if not token.startswith(":"):
            raise self.syntax_error(token)
        self.values.add(token)
        return token

    # Conditions

    def condition(self) -> Condition:
        terms = [self._conjunction()]
        while self.accept("OR"):
            terms.append(self._conjunction())
        if len(terms) == 1:
            return terms[0]
        return lambda item, names, values: any(term(item, names, values) for term in terms)

    def _conjunction(self) -> Condition:
        terms = [self._term()]
        while self.accept("AND"):
            terms.append(self._term())
        if len(terms) == 1:
            return terms[0]
        return lambda item, names, values: all(term(item, names, values) for term in terms)

    def _term(self) -> Condition:
        if self.accept("NOT"):
            inner = self._term()
            return lambda item, names, values: not inner(item, names, values)
        if self.accept("("):
            inner = self.condition()
            self.expect(")")
            return inner
        if self.peek() in ("attribute_exists", "attribute_not_exists") and self.peek(1) == "(":
            wanted = self.take() == "attribute_exists"
            self.expect("(")
            name = self.name()
            self.expect(")")
            return lambda item, names, _values: (resolve(name, names) in item) == wanted
        left, operator = self.operand(), self.take()
        if operator not in _COMPARATORS:
            raise self.syntax_error(operator)
        right = self.operand()
        return lambda item, names, values: _compare(
            left(item, names, values), operator, right(item, names, values)
        )

    def operand(self) -> Operand:
        if self.peek().startswith(":"):
            placeholder = self.placeholder()
            return lambda _item, _names, values: values[placeholder]
        name = self.name()
        return lambda item, names, _values: item.get(resolve(name, names))

    # Updates

    def update(self) -> Update:
        sets: list[tuple[str, Operand]] = []
        removes: list[str] = []
        clauses: set[str] = set()
        while clause := self.take().upper():
            if clause in clauses:
                raise self.error(f'The "{clause}" section can only be used once in an update expression;')
            if clause not in ("SET", "REMOVE"):
                raise self.syntax_error(clause)
            clauses.add(clause)
            while True:
                name = self.name()
                if clause == "REMOVE":
                    removes.append(name)
                else:
                    self.expect("=")
                    sets.append((name, self._assigned()))
                if not self.accept(","):
                    break
        if not clauses:
            raise self.error("The expression can not be empty;")
        return Update(tuple(sets), tuple(removes))

    def _assigned(self) -> Operand:
        left = self._update_operand()
        if self.peek() not in ("+", "-"):
            return left
        sign = 1 if self.take() == "+" else -1
        right = self._update_operand()
        return lambda item, names, values: self._sum(
            left(item, names, values), right(item, names, values), sign
        )

    def _update_operand(self) -> Operand:
        if self.peek() == "if_not_exists" and self.peek(1) == "(":
            self.at += 2
            name = self.name()
            self.expect(",")
            default = self._update_operand()
            self.expect(")")
            return lambda item, names, values: item.get(resolve(name, names)) or default(item, names, values)
        operand = self.operand()

        def present(item: Item, names: Names, values: Values) -> Value:
            value = operand(item, names, values)
            if value is None:
                raise ValueError(
                    "The provided expression refers to an attribute that does not exist in the item"
                )
            return value

        return present

    def _sum(self, left: Value | None, right: Value | None, sign: int) -> Value:
        if left is None or right is None or "N" not in left or "N" not in right:
            raise self.error(
                "Incorrect operand type for operator or function; "
                f"operator or function: {'+' if sign == 1 else '-'}, operand type: not N"
            )
        return {"N": str(number(left["N"]) + sign * number(right["N"]))}


@lru_cache(maxsize=1024)
def condition(text: str, kind: str = "ConditionExpression") -> Compiled[Condition]:
    """Compile a condition or filter expression."""
    parser = _Parser(kind, text)
    return parser.compiled(parser.condition())


@lru_cache(maxsize=1024)
def update(text: str) -> Compiled[Update]:
    """Compile an update expression."""
    parser = _Parser("UpdateExpression", text)
    return parser.compiled(parser.update())


@lru_cache(maxsize=1024)
def key_condition(text: str) -> Compiled[tuple[KeyTerm, ...]]:
    """Compile a key condition."""
    parser = _Parser("KeyConditionExpression", text)
    terms: list[KeyTerm] = []
    while not terms or parser.accept("AND"):
        name, operator = parser.name(), parser.take()
        if operator not in _COMPARATORS - {"<>"}:
            raise parser.syntax_error(operator)
        terms.append(KeyTerm(name, operator, parser.placeholder()))
    return parser.compiled(tuple(terms))

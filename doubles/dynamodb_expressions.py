"""DynamoDB's expression language: conditions, filters, key conditions, updates and projections.

Expressions are compiled once per text to closures over an item, the call's names and its values. Items are in wire
form, `{"name": {"S": "text"}}`. What DynamoDB refuses raises ValueError with its words.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

Value = dict[str, Any]
Item = dict[str, Value]
Names = dict[str, str]
Values = dict[str, Value]
Path = tuple[str | int, ...]
Condition = Callable[[Item, Names, Values], bool]
Operand = Callable[[Item, Names, Values], Value | None]

_TOKEN = re.compile(r"\s*(?:(<>|<=|>=|[=<>(),.+\-\[\]])|([:#]?[A-Za-z0-9_]+))")
_COMPARATORS = {"=", "<>", "<", "<=", ">", ">="}
_FUNCTIONS = {"attribute_exists", "attribute_not_exists", "attribute_type", "begins_with", "contains", "size"}
_ORDERED = {"S", "N", "B"}


class Used(NamedTuple):
    """The placeholders that an expression uses."""

    names: frozenset[str]
    values: frozenset[str]


class Update(NamedTuple):
    """A compiled update: what it sets, removes and adds, in the order of the text."""

    sets: tuple[tuple[Path, Operand], ...]
    removes: tuple[Path, ...]
    adds: tuple[tuple[Path, str], ...]
    deletes: tuple[tuple[Path, str], ...]
    used: Used


class KeyCondition(NamedTuple):
    """A compiled key condition: the partition key's name and value, and what is asked of the sort key."""

    hash_name: str
    hash_value: str
    range_name: str
    operator: str
    range_values: tuple[str, ...]
    used: Used


def number(text: str) -> int | Decimal:
    """Return a wire number's value."""
    try:
        return int(text)
    except ValueError:
        return Decimal(text)


def number_text(value: int | Decimal) -> str:
    """Return a number as DynamoDB writes it: no exponent, no trailing zeros."""
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    return str(value)


def compare_key(value: Value) -> Any:
    """Return what orders a scalar among values of its type."""
    ((kind, raw),) = value.items()
    return number(raw) if kind == "N" else raw


def equal(left: Value | None, right: Value | None) -> bool:
    """Tell whether two values are equal: numbers by value, sets without order."""
    if left is None or right is None:
        return False
    if left == right:
        return True
    ((kind, one),), ((other_kind, other),) = left.items(), right.items()
    if kind != other_kind:
        return False
    if kind == "N":
        return number(one) == number(other)
    if kind in ("SS", "BS"):
        return set(one) == set(other)
    if kind == "NS":
        return {number(text) for text in one} == {number(text) for text in other}
    if kind == "L":
        return len(one) == len(other) and all(map(equal, one, other))
    if kind == "M":
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    return False


def compare(left: Value | None, operator: str, right: Value | None) -> bool:
    """Tell whether `left operator right` holds; values that cannot be ordered never do."""
    if operator == "=":
        return equal(left, right)
    if operator == "<>":
        return not equal(left, right)
    if left is None or right is None:
        return False
    ((kind, one),), ((other_kind, other),) = left.items(), right.items()
    if kind != other_kind or kind not in _ORDERED:
        return False
    if kind == "N":
        one, other = number(one), number(other)
    if operator == "<":
        return bool(one < other)
    if operator == "<=":
        return bool(one <= other)
    return bool(one > other if operator == ">" else one >= other)


def find(item: Item, path: Path, names: Names) -> Value | None:
    """Return the value at a path, None where there is none."""
    value: Value | None = item.get(_name(path[0], names))
    for part in path[1:]:
        if value is None:
            return None
        if isinstance(part, int):
            members = value.get("L")
            value = members[part] if members is not None and part < len(members) else None
        else:
            mapping = value.get("M")
            value = mapping.get(_name(part, names)) if mapping is not None else None
    return value


def _name(part: str | int, names: Names) -> str:
    if isinstance(part, int):
        raise ValueError("Invalid document path")  # noqa: TRY004 -- a fault of the expression, not of a type
    if part[0] != "#":
        return part
    if part not in names:
        raise ValueError(
            f"An expression attribute name used in the document path is not defined; attribute name: {part}"
        )
    return names[part]


class _Parser:
    """A recursive descent over one expression's tokens."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        self.at = 0
        self.names: set[str] = set()
        self.values: set[str] = set()
        position, stripped = 0, text.rstrip()
        while position < len(stripped):
            match = _TOKEN.match(stripped, position)
            if match is None:
                raise ValueError(f'Syntax error; token: "{stripped[position]}"')
            self.tokens.append(match[1] or match[2])
            position = match.end()

    @property
    def used(self) -> Used:
        return Used(frozenset(self.names), frozenset(self.values))

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def accept(self, word: str) -> bool:
        if self.peek().upper() == word:
            self.at += 1
            return True
        return False

    def expect(self, token: str) -> None:
        found = self.take()
        if found.upper() != token:
            raise ValueError(f'Syntax error; token: "{found or "<EOF>"}", expected: "{token}"')

    def end(self) -> None:
        if self.at < len(self.tokens):
            raise ValueError(f'Syntax error; token: "{self.peek()}"')

    def path(self) -> Path:
        parts: list[str | int] = [self._part()]
        while self.peek() in (".", "["):
            if self.take() == ".":
                parts.append(self._part())
            else:
                parts.append(int(self.take()))
                self.expect("]")
        return tuple(parts)

    def _part(self) -> str:
        token = self.take()
        if not token or token[0] == ":" or not re.fullmatch(r"#?[A-Za-z0-9_]+", token):
            raise ValueError(f'Syntax error; token: "{token or "<EOF>"}"')
        if token[0] == "#":
            self.names.add(token)
        return token

    def placeholder(self) -> str:
        token = self.take()
        if not token.startswith(":"):
            raise ValueError(f'Syntax error; token: "{token or "<EOF>"}"')
        self.values.add(token)
        return token

    # conditions

    def condition(self) -> Condition:
        terms = [self._conjunction()]
        while self.accept("OR"):
            terms.append(self._conjunction())
        if len(terms) == 1:
            return terms[0]
        return lambda item, names, values: any(term(item, names, values) for term in terms)

    def _conjunction(self) -> Condition:
        terms = [self._negation()]
        while self.accept("AND"):
            terms.append(self._negation())
        if len(terms) == 1:
            return terms[0]
        return lambda item, names, values: all(term(item, names, values) for term in terms)

    def _negation(self) -> Condition:
        if self.accept("NOT"):
            inner = self._negation()
            return lambda item, names, values: not inner(item, names, values)
        return self._primary()

    def _primary(self) -> Condition:
        if self.peek() == "(":
            self.take()
            inner = self.condition()
            self.expect(")")
            return inner
        token = self.peek()
        if token in _FUNCTIONS and token != "size" and self.tokens[self.at + 1 : self.at + 2] == ["("]:
            return self._function()
        return self._comparison()

    def _function(self) -> Condition:
        name = self.take()
        self.expect("(")
        path = self.path()
        second: Operand | None = None
        if name not in ("attribute_exists", "attribute_not_exists"):
            self.expect(",")
            second = self.operand()
        self.expect(")")
        if name == "attribute_exists":
            return lambda item, names, _: find(item, path, names) is not None
        if name == "attribute_not_exists":
            return lambda item, names, _: find(item, path, names) is None
        check = {"begins_with": _begins_with, "contains": _contains, "attribute_type": _has_type}[name]
        argument = second or (lambda _item, _names, _values: None)
        return lambda item, names, values: check(find(item, path, names), argument(item, names, values))

    def _comparison(self) -> Condition:
        left = self.operand()
        token = self.take()
        if token in _COMPARATORS:
            right = self.operand()
            return lambda item, names, values: compare(
                left(item, names, values), token, right(item, names, values)
            )
        if token.upper() == "BETWEEN":
            low = self.operand()
            self.expect("AND")
            high = self.operand()

            def between(item: Item, names: Names, values: Values) -> bool:
                value = left(item, names, values)
                return compare(value, ">=", low(item, names, values)) and compare(
                    value, "<=", high(item, names, values)
                )

            return between
        if token.upper() == "IN":
            self.expect("(")
            choices = [self.operand()]
            while self.accept(","):
                choices.append(self.operand())
            self.expect(")")
            return lambda item, names, values: any(
                equal(left(item, names, values), choice(item, names, values)) for choice in choices
            )
        raise ValueError(f'Syntax error; token: "{token or "<EOF>"}"')

    def operand(self) -> Operand:
        token = self.peek()
        if token.startswith(":"):
            name = self.placeholder()
            return lambda _item, _names, values: _value(values, name)
        if token == "size" and self.tokens[self.at + 1 : self.at + 2] == ["("]:
            self.take()
            self.expect("(")
            measured = self.path()
            self.expect(")")
            return lambda item, names, _: _size(find(item, measured, names))
        path = self.path()
        if len(path) == 1 and path[0][0] != "#":  # type: ignore[index]  # the first part is a name
            plain = str(path[0])
            return lambda item, _names, _values: item.get(plain)
        return lambda item, names, _: find(item, path, names)

    # updates

    def update(self) -> Update:
        sets: list[tuple[Path, Operand]] = []
        removes: list[Path] = []
        adds: list[tuple[Path, str]] = []
        deletes: list[tuple[Path, str]] = []
        seen: set[str] = set()
        while self.peek():
            clause = self.take().upper()
            if clause in seen:
                raise ValueError(f'The "{clause}" section can only be used once in an update expression;')
            seen.add(clause)
            while True:
                if clause == "SET":
                    path = self.path()
                    self.expect("=")
                    sets.append((path, self._assigned()))
                elif clause == "REMOVE":
                    removes.append(self.path())
                elif clause == "ADD":
                    adds.append((self.path(), self.placeholder()))
                elif clause == "DELETE":
                    deletes.append((self.path(), self.placeholder()))
                else:
                    raise ValueError(f'Syntax error; token: "{clause}"')
                if not self.accept(","):
                    break
        if not seen:
            raise ValueError("The expression can not be empty;")
        return Update(tuple(sets), tuple(removes), tuple(adds), tuple(deletes), self.used)

    def _assigned(self) -> Operand:
        left = self._update_operand()
        if self.peek() not in ("+", "-"):
            return left
        sign = 1 if self.take() == "+" else -1
        right = self._update_operand()
        return lambda item, names, values: _sum(left(item, names, values), right(item, names, values), sign)

    def _update_operand(self) -> Operand:
        token = self.peek()
        if token in ("if_not_exists", "list_append") and self.tokens[self.at + 1 : self.at + 2] == ["("]:
            self.take()
            self.expect("(")
            if token == "if_not_exists":
                path = self.path()
                self.expect(",")
                default = self._update_operand()
                self.expect(")")

                def if_not_exists(item: Item, names: Names, values: Values) -> Value | None:
                    return find(item, path, names) or default(item, names, values)

                return if_not_exists
            first = self._update_operand()
            self.expect(",")
            second = self._update_operand()
            self.expect(")")
            return lambda item, names, values: _append(
                first(item, names, values), second(item, names, values)
            )
        if token == "(":
            self.take()
            inner = self._assigned()
            self.expect(")")
            return inner
        operand = self.operand()

        def present(item: Item, names: Names, values: Values) -> Value:
            value = operand(item, names, values)
            if value is None:
                raise ValueError(
                    "The provided expression refers to an attribute that does not exist in the item"
                )
            return value

        return present


def _value(values: Values, name: str) -> Value:
    if name not in values:
        raise ValueError(
            f"An expression attribute value used in expression is not defined; attribute value: {name}"
        )
    return values[name]


def _begins_with(value: Value | None, prefix: Value | None) -> bool:
    if value is None or prefix is None:
        return False
    ((kind, text),), ((other, start),) = value.items(), prefix.items()
    return kind == other and kind in ("S", "B") and bool(text.startswith(start))


def _contains(value: Value | None, part: Value | None) -> bool:
    if value is None or part is None:
        return False
    ((kind, whole),), ((other, piece),) = value.items(), part.items()
    if kind in ("S", "B"):
        return kind == other and piece in whole
    if kind in ("SS", "NS", "BS"):
        return other == kind[0] and piece in whole
    return kind == "L" and any(equal(member, part) for member in whole)


def _has_type(value: Value | None, kind: Value | None) -> bool:
    return value is not None and kind is not None and kind.get("S") in value


def _size(value: Value | None) -> Value | None:
    if value is None:
        return None
    ((kind, raw),) = value.items()
    if kind == "S":
        return {"N": str(len(raw.encode()))}
    return {"N": str(len(raw))} if kind in ("B", "SS", "NS", "BS", "L", "M") else None


def _sum(left: Value | None, right: Value | None, sign: int) -> Value:
    if left is None or right is None or "N" not in left or "N" not in right:
        raise ValueError(
            "Incorrect operand type for operator or function; operator or function: +, operand type: not N"
        )
    return {"N": number_text(number(left["N"]) + sign * number(right["N"]))}


def _append(first: Value | None, second: Value | None) -> Value:
    if first is None or second is None or "L" not in first or "L" not in second:
        raise ValueError("Incorrect operand type for operator or function; operator or function: list_append")
    return {"L": [*first["L"], *second["L"]]}


@lru_cache(maxsize=1024)
def condition(text: str) -> tuple[Condition, Used]:
    """Return a condition or filter expression, compiled, and what it uses."""
    parser = _Parser(text)
    compiled = parser.condition()
    parser.end()
    return compiled, parser.used


@lru_cache(maxsize=1024)
def update(text: str) -> Update:
    """Return an update expression, compiled."""
    return _Parser(text).update()


@lru_cache(maxsize=1024)
def projection(text: str) -> tuple[tuple[Path, ...], Used]:
    """Return the paths of a projection, and what it uses."""
    parser = _Parser(text)
    paths = [parser.path()]
    while parser.accept(","):
        paths.append(parser.path())
    parser.end()
    return tuple(paths), parser.used


@lru_cache(maxsize=1024)
def key_condition(text: str) -> KeyCondition:
    """Return a key condition, compiled: `hash = :h [AND range …]`, either order, parentheses allowed."""
    parser = _Parser(re.sub(r"(?<!begins_with)(?<!begins_with )\(([^()]*)\)", r" \1 ", text))
    equalities: list[tuple[str, str]] = []
    other: tuple[str, str, tuple[str, ...]] | None = None
    while True:
        if parser.peek() == "begins_with":
            parser.take()
            parser.expect("(")
            name = str(parser.path()[0])
            parser.expect(",")
            other = (name, "begins_with", (parser.placeholder(),))
            parser.expect(")")
        else:
            name, operator = str(parser.path()[0]), parser.take()
            if operator.upper() == "BETWEEN":
                low = parser.placeholder()
                parser.expect("AND")
                other = (name, "BETWEEN", (low, parser.placeholder()))
            elif operator == "=":
                equalities.append((name, parser.placeholder()))
            elif operator in ("<", "<=", ">", ">="):
                other = (name, operator, (parser.placeholder(),))
            else:
                raise ValueError("Invalid operator used in KeyConditionExpression")
        if not parser.accept("AND"):
            break
    parser.end()
    if not equalities or len(equalities) + (other is not None) > 2:
        raise ValueError("Query condition missed key schema element")
    hash_name, hash_value = equalities[0]
    if other is None and len(equalities) == 2:
        other = (equalities[1][0], "=", (equalities[1][1],))
    range_name, operator, range_values = other or ("", "", ())
    return KeyCondition(hash_name, hash_value, range_name, operator, range_values, parser.used)

"""`python mutants.py MODULE …` prints every mutant of the modules, one JSON object per line. It runs in .venv-mutate.

The mutations are mutmut's and the six below. mutmut's own runner skips everything outside functions, and decorated
functions. Here the limits, tables and state machines at module level matter just as much, so tests.mutation runs the mutants
itself.
"""

import json
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import OPERATORS_TYPE, mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

_CALL = m.SimpleStatementLine(body=[m.Expr(value=m.Call())])
_RAISE = m.SimpleStatementLine(body=[m.Raise()])
_PROSE = m.SimpleString(value=m.MatchIfTrue(lambda text: " " in text))
_TYPE = m.Subscript(value=m.Name("Literal")) | m.If(test=m.Name("TYPE_CHECKING"))
_MEMBER = m.Attribute(
    value=m.Name(value=m.MatchRegex("[A-Z][A-Za-z]*")), attr=m.Name(value=m.MatchRegex("[A-Z][A-Z_0-9]*"))
)
_OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any"}
_NO_MEANING = m.Assign(value=m.Call(func=m.Name("auto")) | _PROSE)


def remove_statement(node: cst.SimpleStatementLine) -> Iterator[cst.SimpleStatementLine]:
    """Remove a call or a raise."""
    if m.matches(node, _CALL | _RAISE):
        yield node.with_changes(body=[cst.Pass()])


def swap_calls(node: cst.IndentedBlock) -> Iterator[cst.IndentedBlock]:
    """Swap two consecutive calls, such as two effects."""
    for index, (first, second) in enumerate(pairwise(node.body)):
        if m.matches(first, _CALL) and m.matches(second, _CALL) and not first.deep_equals(second):
            yield node.with_changes(body=[*node.body[:index], second, first, *node.body[index + 2 :]])


def remove_element(node: cst.Tuple | cst.List | cst.Set | cst.Dict) -> Iterator[cst.CSTNode]:
    """Remove an element from a literal."""
    bare = isinstance(node, cst.Tuple) and not node.lpar  # several values rather than a collection
    if len(node.elements) > 1 and not bare:
        for index in range(len(node.elements)):
            yield node.with_changes(elements=[*node.elements[:index], *node.elements[index + 1 :]])


def negate(node: cst.If | cst.While) -> Iterator[cst.CSTNode]:
    """Negate a condition without an operator; mutmut mutates the operators of the others."""
    if not isinstance(node.test, (cst.Comparison, cst.BooleanOperation, cst.UnaryOperation)):
        condition = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        yield node.with_changes(test=cst.UnaryOperation(cst.Not(), condition))


def swap_function(node: cst.Call) -> Iterator[cst.Call]:
    """Swap min with max and any with all."""
    if isinstance(node.func, cst.Name) and node.func.value in _OPPOSITES:
        yield node.with_changes(func=cst.Name(_OPPOSITES[node.func.value]))


def another_member(tree: cst.Module) -> Callable[[cst.Attribute], Iterator[cst.Attribute]]:
    """Return a function that replaces an enum member with the next one that the module uses."""
    found = sorted({(node.value.value, node.attr.value) for node in m.findall(tree, _MEMBER)})

    def replace(node: cst.Attribute) -> Iterator[cst.Attribute]:
        if m.matches(node, _MEMBER):
            names = [name for enum, name in found if enum == node.value.value]
            other = names[(names.index(node.attr.value) + 1) % len(names)]
            yield node.with_changes(attr=cst.Name(other))

    return replace


OPERATORS: OPERATORS_TYPE = [
    *mutation_operators,
    ((cst.If, cst.While), negate),
    (cst.Call, swap_function),
    (cst.SimpleStatementLine, remove_statement),
    (cst.IndentedBlock, swap_calls),
    ((cst.Tuple, cst.List, cst.Set, cst.Dict), remove_element),
]


class Visitor(MutationVisitor):
    """Finds mutations, also in decorated functions, but not in types or in prose: wording is free to change."""

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef):
            return False
        return m.matches(node, _TYPE | _PROSE | _NO_MEANING) or super()._skip_node_and_children(node)


def mutants(path: Path) -> Iterator[dict[str, object]]:
    """Yield each mutant of a module: its source, and how it differs from the module."""
    original = path.read_text()
    wrapper = MetadataWrapper(cst.parse_module(original))
    operators = [*OPERATORS, (cst.Attribute, another_member(wrapper.module))]
    visitor = Visitor(operators, IgnoredCode(set(), set(), set()))
    tree = wrapper.visit(visitor)
    place = {node: index for index, statement in enumerate(tree.body) for node in _below(statement)}
    seen = {original}
    for mutation in visitor.mutations:
        index = place[mutation.original_node]
        statement = tree.body[index].deep_replace(mutation.original_node, mutation.mutated_node)
        source = tree.with_changes(body=[*tree.body[:index], statement, *tree.body[index + 1 :]]).code
        if source not in seen:
            seen.add(source)
            line, was, now = _difference(original.splitlines(), source.splitlines())
            yield {"module": str(path), "line": line, "was": was, "now": now, "source": source}


def _below(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    yield node
    for child in node.children:
        yield from _below(child)


def _difference(old: list[str], new: list[str]) -> tuple[int, str, str]:
    """Return the number of the first line that differs, and the lines that differ, joined, before and after."""
    shorter = min(len(old), len(new))
    start = next((i for i in range(shorter) if old[i] != new[i]), shorter)
    end = next((i for i in range(shorter - start) if old[-1 - i] != new[-1 - i]), shorter - start)
    return start + 1, _joined(old[start : len(old) - end]), _joined(new[start : len(new) - end])


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


if __name__ == "__main__":
    for name in sys.argv[1:]:
        for mutant in mutants(Path(name)):
            print(json.dumps(mutant))  # noqa: T201

"""Rules for the code's structure: imports, names and types."""

import ast
import graphlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOUSE = {
    "shared": set(),
    "ingest": {"shared"},
    "worker": {"shared"},
    "scaler": {"shared"},
    "ops": {"shared", "worker"},
    "release": {"shared", "ops"},
    "doubles": {"shared"},
    "client": set(),
    "local": {"shared", "ingest", "worker", "ops", "doubles"},
}


def imports(tree: ast.Module) -> set[str]:
    """Return the modules that a module imports, and the names that it imports from them."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


@pytest.mark.parametrize("package", HOUSE)
def test_packages_import_only_allowed_packages(package: str) -> None:
    """A package imports only the packages that CONTRIBUTING.md allows."""
    forbidden = {*HOUSE, "tests", "benchmarks", "chaos"} - HOUSE[package] - {package}

    assert {} == {
        str(path.relative_to(ROOT)): found
        for path in (ROOT / package).rglob("*.py")
        if (found := {name.partition(".")[0] for name in imports(ast.parse(path.read_text()))} & forbidden)
    }


def test_the_client_imports_only_the_standard_library() -> None:
    """Its package has no dependencies."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "client/sluice_client").glob("*.py")]
    found = {name.partition(".")[0] for tree in trees for name in imports(tree)}

    assert {"sluice_client"} == found - sys.stdlib_module_names


MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text())
    for package in ("shared", "ingest", "worker", "scaler", "ops", "release", "local")
    for path in sorted((ROOT / package).rglob("*.py"))
}
AWS = {
    *("acm", "apigatewayv2", "aws", "client", "cloudformation", "cloudfront", "cloudwatch", "codedeploy"),
    *("dynamodb", "ec2", "elasticache", "functions", "iam", "kinesis", "lambdas", "logs", "quotas"),
    *("route53", "s3", "secrets", "sns", "sqs", "sts"),
}
"""Names of AWS clients, and of what returns one."""
ANY = re.compile(r"(^['\"]?|\| )(Callable\[.*, )?Any\]?($| \||['\"]$)")
"""A type that may be Any, or a callable that returns Any."""


def test_imports_form_no_cycle() -> None:
    """No module imports itself, directly or through others."""
    graph = {name: imports(tree) & MODULES.keys() for name, tree in MODULES.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle


def test_public_classes_have_unique_names() -> None:
    """No two public classes of the product have the same name."""
    places: dict[str, list[str]] = {}
    for name, tree in MODULES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name)

    assert {} == {name: modules for name, modules in places.items() if len(modules) > 1}


SPOKEN_OF = {
    ("certify", "certify"), ("completeness", "wait"), ("deploy", "deploy"), ("failure", "local"), ("help_page", "deploy"),
    ("local", "local"), ("monthly", "cost"), ("outage_steps", "doctor"), ("plan", "accounts apply"), ("remove", "remove"),
    ("server", "console"), ("stack", "local"),
}  # fmt: skip
"""Commands that modules of ops speak of, or that need no stack."""


def test_an_advised_command_names_the_stack() -> None:
    """Pasted, it acts on the stack that the message is about, whatever SLUICE_STACK says."""
    found = {
        (name.rpartition(".")[2], command)
        for name, tree in MODULES.items()
        if name.startswith("ops.")
        for text in messages(tree)
        for command in re.findall("`sluice ([^`]+)`", text)
        if not re.search("option}|--local|--stack|--region", command)
    }

    assert found == SPOKEN_OF


def messages(tree: ast.Module) -> Iterator[str]:
    """Yield the texts of a module but for docstrings and the help of options."""
    passed = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.keyword) and node.arg == "help"):
            passed |= {id(part) for part in ast.walk(node) if part is not node}
        if isinstance(node, ast.JoinedStr | ast.Constant) and id(node) not in passed:
            yield ast.unparse(node)


def test_aws_clients_have_types() -> None:
    """Parameters, results and variables that are an AWS client have its type. `chaos` is exempt: its clients are stand-ins."""
    found = [
        f"{module}: {name}: {ast.unparse(annotation)}"
        for module, tree in MODULES.items()
        for name, annotation in annotations(tree)
        if name.strip("_") in AWS and ANY.search(ast.unparse(annotation))
    ]

    assert [] == found


def annotations(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names of a module's parameters, functions and variables, with the types that they are annotated with."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation:
            yield node.arg, node.annotation
        elif isinstance(node, ast.FunctionDef) and node.returns:
            yield node.name, node.returns
        elif isinstance(node, ast.AnnAssign):
            yield ast.unparse(node.target).rpartition(".")[2], node.annotation

"""Tests the newest published versions of Treasure Data's clients and prints a table: `python -m tests.clients`.

The browser SDKs come from npm, the newest of each major version that docs/clients.md names, and run in a real browser. Clients
that do not run here, such as the mobile SDKs, are tested with their recorded requests.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".cache/clients"
PACKAGE = "td-js-sdk"
MAJORS = (2, 3, 4)
RECORDED = "tests/ingest/test_td_clients.py"
BROWSER = "tests/clients/test_td_js_sdk.py"


def install() -> dict[str, str]:
    """Install the newest versions, and return each version by the name that the tests use."""
    wanted = {f"{PACKAGE}-{major}": f"npm:{PACKAGE}@^{major}" for major in MAJORS}
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "package.json").write_text(json.dumps({"private": True, "dependencies": wanted}))
    (FOLDER / "package-lock.json").unlink(missing_ok=True)
    command = ["npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=FOLDER, check=True)
    packages = {name: FOLDER / "node_modules" / name / "package.json" for name in wanted}
    return {name: json.loads(path.read_text())["version"] for name, path in packages.items()}


def latest() -> str:
    """Return the version that npm installs by default."""
    command = ["npm", "view", PACKAGE, "version"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test() -> ET.Element:
    """Run the tests and return their report."""
    report = FOLDER / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", BROWSER, RECORDED]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"SLUICE_CLIENTS": str(FOLDER)}, check=False)
    return ET.parse(report).getroot()


def results(report: ET.Element) -> dict[str, Counter[str]]:
    """Return how many tests of each client passed, failed or were skipped."""
    found: dict[str, Counter[str]] = {}
    for case in report.iter("testcase"):
        named = re.search(rf"{PACKAGE}-\d( [\w ]+)?", case.get("name", ""))
        client = named[0] if named and "test_td_js_sdk" in case.get("classname", "") else "recorded requests"
        outcome = next((part.tag for part in case if part.tag in ("failure", "error", "skipped")), "passed")
        found.setdefault(client, Counter())[outcome] += 1
    return found


def main() -> int:
    """Print the table; return 1 if a test failed or a newer major version is not tested."""
    versions, newest = install(), latest()
    found = results(test())
    lines = ["", "| client | version | passed | failed | skipped |", "|---|---|---:|---:|---:|"]
    for client, counts in sorted(found.items()):
        version = versions.get(client.partition(" ")[0], "")
        failed = counts["failure"] + counts["error"]
        lines.append(f"| {client} | {version} | {counts['passed']} | {failed} | {counts['skipped']} |")
    is_tested = newest in versions.values()
    remark = "tested" if is_tested else "NOT TESTED: add its major version to MAJORS"
    sys.stdout.write("\n".join([*lines, "", f"npm's newest {PACKAGE}: {newest}, {remark}", ""]))
    is_clean = all(set(counts) == {"passed"} for counts in found.values())
    return 0 if is_clean and is_tested else 1


if __name__ == "__main__":
    sys.exit(main())

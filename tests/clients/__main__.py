"""Tests the newest published versions of Treasure Data's clients: `python -m tests.clients`.

The browser SDKs come from npm, the newest of each major version that docs/clients.md names, and run in a real browser. Clients
that do not run here, such as the mobile SDKs, are tested with their recorded requests.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".cache/clients"
PACKAGE = "td-js-sdk"
MAJORS = (2, 3, 4)
TESTS = ("tests/clients/test_td_js_sdk.py", "tests/ingest/test_td_clients.py")


def install() -> list[str]:
    """Install the newest versions, and return them."""
    wanted = {f"{PACKAGE}-{major}": f"npm:{PACKAGE}@^{major}" for major in MAJORS}
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "package.json").write_text(json.dumps({"private": True, "dependencies": wanted}))
    (FOLDER / "package-lock.json").unlink(missing_ok=True)
    command = ["npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=FOLDER, check=True)
    packages = (FOLDER / "node_modules" / name / "package.json" for name in wanted)
    return [json.loads(path.read_text())["version"] for path in packages]


def main() -> int:
    """Run the tests; return 1 if one fails or is skipped, or if a newer major version is not tested."""
    versions = install()
    command = ["npm", "view", PACKAGE, "version"]
    newest = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    # CI: a test that lacks a package or the browser fails, instead of being skipped
    environment = os.environ | {"SLUICE_CLIENTS": str(FOLDER), "CI": "true"}
    command = [sys.executable, "-m", "pytest", "-v", *TESTS]
    tested = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    remark = "tested" if newest in versions else "NOT TESTED: add its major version to MAJORS"
    sys.stdout.write(f"\n{PACKAGE} {', '.join(versions)}; npm's newest is {newest}: {remark}\n")
    return int(bool(tested.returncode) or newest not in versions)


if __name__ == "__main__":
    sys.exit(main())

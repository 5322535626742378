"""How every command behaves on an 80-column terminal, in a pipe, with --json, without colours, and on Ctrl-C."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ops.cli import main
from tests.ops.test_trouble import COMMANDS, words
from tests.support import ctrl_c, terminal
from tests.support.commands import all_commands
from tests.support.sam import ROOT
from tests.support.sluice import Sluice, until

pytestmark = pytest.mark.xdist_group("manners")

READING = [
    "accounts list",
    "accounts show app",
    "dead list",
    "doctor --no-event",
    "find a --account nobody_of_a_long_name",
    "keys issue app",
    "keys verify {key}",
    "plan diff news",
    "record -o {out}",
    "redrive --dry-run --kind dead",
    "replay --dry-run",
    "status",
    "status --all",
    "status --complete",
    "wait --account app --table events --until 3h --timeout 1s",
]
"""Commands that show something and change nothing."""


@pytest.fixture
def filled(sluice: Sluice) -> Sluice:
    """The stack, with a dead row of long names, and with records on its first shard."""

    def has_records() -> bool:
        sluice.send("shop", "on_any_shard", "a")
        return bool(sluice.json("replay --local --dry-run")["shards"]["shardId-000000000000"])

    until(has_records)
    listing = "dead list --local --account nobody_of_a_long_name"
    if not sluice.json(listing):
        sluice.produce("nobody_of_a_long_name", "a_table_with_a_name_that_is_long", "a")
        until(lambda: bool(sluice.json(listing)))
    return sluice


def trouble(said: str) -> list[str]:
    """Return the lines on standard error that are not notes."""
    return [line for line in said.splitlines() if line and not line.startswith("Note: ")]


def start(sluice: Sluice, line: list[str], stdout: int, **more: str) -> subprocess.Popen[bytes]:
    """Run a command in a process of its own."""
    ours = {"SLUICE_HOME": str(sluice.home), "SLUICE_STACK": "", "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "ops", *line, "--local"]
    streams: Any = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | ours | more, **streams)


@pytest.mark.parametrize("command", ["", *dict(all_commands())])
def test_help_fits_80_columns(command: str) -> None:
    """This holds for every command and group."""
    result = CliRunner(mix_stderr=False).invoke(main, [*command.split(), "--help"], terminal_width=80)

    assert (0, "") == (result.exit_code, result.stderr)
    assert [] == [line for line in result.stdout.splitlines() if len(line) > 80]
    assert "[default: (" not in result.stdout
    assert "sluice 0.1.0\n" == CliRunner().invoke(main, ["--version"], prog_name="sluice").stdout


@pytest.mark.parametrize("line", READING)
def test_output_fits_a_terminal_of_80_columns_and_a_pipe(filled: Sluice, tmp_path: Path, line: str) -> None:
    """Tables fold long texts, and NO_COLOR turns colours off; a pipe gets no escape sequences, and with --json only JSON."""
    command = words(line, tmp_path)
    code, seen, said = terminal.shown(partial(start, filled, command, NO_COLOR="1"))
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode()).replace("\r\n", "\n")
    plain = filled.run(f"{' '.join(command)} --local")
    as_json = filled.run(f"{' '.join(command)} --local --json")

    assert ([], True) == (trouble(said.decode()), code in (0, 3, 4)), text
    assert re.search(rb"\x1b\[[0-9;]*3[0-7]", seen) is None
    if line.startswith(("status", "dead", "accounts")):
        tables = [one.rstrip() for one in text.split("\n") if not one.startswith(("FAULT", "?", "ok"))]
        assert [] == [one for one in tables if "   " in one.strip() and len(one) > 80]
    assert (True, []) == (plain.exit_code in (0, 3, 4), trouble(plain.stderr))
    assert "\x1b" not in plain.stdout
    assert "" == as_json.stderr
    values = as_json.stdout.splitlines() if line.startswith("find") else [as_json.stdout]
    assert [json.loads(one) for one in values]


def test_every_command_can_be_interrupted(tmp_path: Path) -> None:
    """While AWS does not answer, Ctrl-C ends each with 130, at once and without a traceback."""
    for line in COMMANDS:
        with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
            silent.settimeout(60)
            environment = {
                **os.environ,
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "SLUICE_STACK": "sluice-dev",
            }
            command = [sys.executable, "-m", "ops", *words(line, tmp_path), "--region", "us-east-1"]
            running = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
            connection, _ = silent.accept()
            with connection:
                _, said = ctrl_c.press(running, 30)

        # killed by the second press, while it ended, is 130 to a shell, too
        assert running.returncode in (130, -signal.SIGINT), (line, said)
        assert b"Traceback" not in said, line


FIND = "lambda name, *_: name == 'ops.cli' and os.kill(os.getpid(), signal.SIGINT) or None"
INTERRUPTED = f"""import os, runpy, signal, sys, types; sys.meta_path.insert(0, types.SimpleNamespace(find_spec={FIND}))
runpy.run_module('ops', run_name='__main__')"""


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        # Ctrl-C while the command is imported, which takes a second
        ([sys.executable, "-c", INTERRUPTED], 130, b""),
        # standard input is closed: whatever reads it is at its end
        (["sh", "-c", f"exec '{sys.executable}' -m ops mcp --local <&-"], 0, b""),
        # characters that the terminal's encoding lacks are escaped
        ([sys.executable, "-m", "ops", "certify", "--help"], 0, rb"sluice_certify\u2026"),
    ],
)
def test_a_command_ends_as_usual_whatever_surrounds_it(command: list[str], code: int, said: bytes) -> None:
    """Without a traceback, and not in the middle of its work."""
    latin = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, cwd=ROOT, env=latin, capture_output=True, check=False, timeout=60)

    assert (code, b"", True) == (done.returncode, done.stderr, said in done.stdout)


def test_plans_are_written_and_read_in_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    """A value of a plan that is read in another encoding never matches."""
    file = tmp_path / "plan.yaml"
    code = f"""from pathlib import Path; from ops import accounts_file, screen; file = Path({str(file)!r})
screen.write(file, "tables: {{visits: {{description: \\u8cfc}}}}"); accounts_file.read_plan(file)"""
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ascii_only, check=False, timeout=60)

    assert (0, True) == (done.returncode, "\u8cfc".encode() in file.read_bytes())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("statsu", "No such command 'statsu'. Did you mean status?"),
        ("xyzzy", "No such command 'xyzzy'. Commands: accounts, "),
        ("status --lcal", "No such option: --lcal"),
        ("dead drop --local", "select what to drop with --account, --table, --reason or --since, or use --all"),
        ("forget email=a --local", "name the account: --account NAME"),
        ("forget --account shop --local", "name a person with COLUMN=VALUE, or many with --from FILE"),
        ("forget nothing --account shop --local", "is not a condition: write COLUMN=VALUE"),
        ("mcp", "name a stack: --stack NAME"),
        ("dead drop --all --waiting --rejected --local", "use either --rejected or --waiting"),
        ("redrive --local --edit --json", "--edit is interactive and works on dead rows"),
        ("redrive --local --kind rejected", "to repair rejected events, add --edit; `sluice dead drop --local --rejected` gives them up"),
        ("redrive --local --send --kind again", "--send works only with --kind waiting and --kind dead"),
        ("replay", "name a stack: --stack NAME"),
        ("replay --local --account shop", "work only with --force"),
        ("replay --local --force --from 2026-01-01 --to 2026-01-02 --tag A#B", "is not a tag"),
        ("replay --local --force --from 2026-01-01 --to 2999-01-01", "--force needs a range in the past"),
        ("replay --local --force --from 2026-01-01 --to now", "needs --from and --to as absolute times"),
        ("replay --local --from 1h --to 2h", "--from is not before --to: swap them"),
        ("replay --local --from 49590338271490256608559600000", "a sequence number needs its shard"),
        ("replay --local --from 2999-01-01", "--from is in the future: times are in UTC"),
        ("replay --local --from yesterday", "'yesterday' is not a time"),
        ("status --local --since 1h --until 2h", "--since is not before --until: swap them"),
        ("status --local --since 2999-01-01", "--since is in the future: times are in UTC"),
        ("--local status", "Write --local after the command, as in `sluice status --local`."),
        ("tail --local page", "write COLUMN=VALUE, such as page=home"),
        ("find --local ''", "'' is not a condition"),
        ("find --local =x", "'=x' is not a condition"),
        ("wait --local --account Shop --table pageviews --until 1h", "'Shop' is not a valid account name"),
        ("wait --local --account shop --table p --until 1h", "'p' is not a valid table name"),
    ],
)  # fmt: skip
def test_a_mistake_on_the_command_line_gets_a_suggestion(sluice: Sluice, line: str, said: str) -> None:
    """The exit status is 2."""
    result = sluice.run(line)

    assert (2, True) == (result.exit_code, said in " ".join(result.stderr.split())), result.stderr


@pytest.mark.parametrize("line", ["apply {}/accounts.yaml", "disable app", "revoke app next-7"])
def test_a_question_without_a_terminal_names_yes(sluice: Sluice, tmp_path: Path, line: str) -> None:
    """Nothing is done, because nobody can answer it."""
    (tmp_path / "accounts.yaml").write_text("shop: {database: elsewhere}\n")
    group = "keys" if line.startswith("revoke") else "accounts"
    running = start(sluice, [group, *line.format(tmp_path).split()], subprocess.DEVNULL)
    _, said = running.communicate(timeout=60)

    assert 1 == running.returncode
    before = sluice.json("accounts show app --local")
    assert ("active", "") == (before["status"], before["revoked_key_ids"])
    assert b"nothing was done, because there was no answer: without a terminal, add --yes" in said


@pytest.mark.parametrize(
    "line",
    ["accounts disable app", "keys revoke app next-7", "keys rotate", "keys rotate --retire demo", "replay"],
)
def test_a_dry_run_says_that_it_is_one(filled: Sluice, line: str) -> None:
    """Its last line cannot be taken for a result."""
    result = filled.run(f"{line} --local --dry-run")

    assert (0, "Dry run: nothing was changed.") == (result.exit_code, result.stdout.splitlines()[-1])


def test_exported_accounts_can_be_applied(sluice: Sluice, tmp_path: Path) -> None:
    """Applying an export changes nothing."""
    file = tmp_path / "accounts.yaml"
    printed = sluice.run("accounts export --local")
    file.write_text(printed.stdout)
    applied = sluice.run(f"accounts apply --local {file}")
    written = sluice.run(f"accounts export --local -o {tmp_path}/other.yaml")

    assert (0, "No changes.\n") == (applied.exit_code, applied.stdout)
    assert (0, printed.stdout) == (written.exit_code, (tmp_path / "other.yaml").read_text())

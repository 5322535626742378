"""Ctrl-C ends the commands of the Makefile."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from signal import SIGINT, raise_signal

import pytest

from chaos.simulation import Process, Simulation

PRESS = "import os, signal\nos.killpg(0, signal.SIGINT)\n"
DELETED = f"class Made:\n def __del__(self): exec({PRESS!r})\nMade()\nwhile True: pass"
POOL = f"""import click, time\nfrom chaos.run import Pool\n@click.command()\ndef main():
    with Pool(2) as pool:
        pool.map(time.sleep, [600] * 5)
        exec({PRESS!r})"""


def test_an_interrupt_is_no_failure_of_the_simulated_function() -> None:
    """It ends the simulation."""
    simulation, ended = Simulation(0.0), list[object]()
    simulation.spawn(Process(simulation, "w1"), partial(raise_signal, SIGINT), lambda *end: ended.append(end))
    with pytest.raises(KeyboardInterrupt):
        simulation.run()
    assert [] == ended


@pytest.mark.parametrize("text", [PRESS, DELETED, POOL], ids=["import", "destructor", "pool"])
def test_ctrl_c_ends_a_command_with_one_line(tmp_path: Path, text: str) -> None:
    """Even while it is imported or its processes start, and whatever they have left to do."""
    (tmp_path / "made.py").write_text(text)
    command, path = [sys.executable, "bin/start.py", "made"], {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, check=False, env=path, capture_output=True, timeout=60, process_group=0)
    assert (130, b"interrupted\n", b"") == (done.returncode, done.stdout, done.stderr.strip())

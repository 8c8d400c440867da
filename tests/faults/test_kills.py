"""The short version of kills.py, which `python tests/faults/kills.py --kills 50` runs in full."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.long)])
def test_a_workflow_that_is_killed_goes_on_and_leaves_the_same_bytes(kills):
    program = Path(__file__).with_name("kills.py")
    done = subprocess.run(
        [sys.executable, program, "--kills", str(kills), "--seed", "3"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kills} kills survived of {kills}; byte-identical: yes" in done.stdout

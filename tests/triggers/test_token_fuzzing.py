"""The fuzz program beside these tests, for two seconds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent.parent / "fuzz" / "fuzz_tokens.py"


def test_two_seconds_of_fuzzing_find_nothing():
    """
    Two seconds of random and mutated input raise nothing but refusals and have no forged token taken.
    """
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--seconds", "2"], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert int(re.match(r"[0-9]+", done.stdout)[0]) > 100

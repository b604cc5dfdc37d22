"""The reference pages say what the code says."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_reference_pages_are_as_the_code_says() -> None:
    found = subprocess.run(
        [sys.executable, str(ROOT / "script/docs"), "--check"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_an_unknown_option_is_refused_and_writes_nothing() -> None:
    before = {page: page.read_bytes() for page in (ROOT / "docs/reference").iterdir()}
    found = subprocess.run(
        [sys.executable, str(ROOT / "script/docs"), "--chekc"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 2
    assert before == {page: page.read_bytes() for page in (ROOT / "docs/reference").iterdir()}

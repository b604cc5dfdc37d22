"""The tests of inside/ and every driver's goldens, in a virtual machine with Debian's kernel (script/vm).

New ones need no word here: a file below inside/ is enough.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_what_this_kernel_lacks() -> None:
    if shutil.which("qemu-system-x86_64") is None or not glob.glob("/boot/vmlinuz-*-cloud-*"):
        pytest.skip("needs qemu and Debian's cloud kernel: script/setup --vm")
    if os.environ.get("DARI_VM"):
        pytest.skip("is in the virtual machine already")
    done = subprocess.run([str(ROOT / "script/vm")], capture_output=True, text=True, timeout=2800)
    assert done.returncode == 0, f"{done.stdout[-20000:]}\n{done.stderr}"
    # Nothing was left out for want of a kernel that can.
    assert " passed" in done.stdout and "skipped" not in done.stdout, done.stdout[-5000:]

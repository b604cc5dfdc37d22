"""How much longer than usual a test waits before it gives up: an emulated processor is slow (script/vm)."""

from __future__ import annotations

import os

PATIENCE = 10 if os.environ.get("DARI_VM") else 1

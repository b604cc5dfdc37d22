"""The tests below inside/ run in the virtual machine only (script/vm); outside they are not even collected."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("DARI_VM") else ["inside/*"]

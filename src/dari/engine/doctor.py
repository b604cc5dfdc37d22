"""doctor: does the kernel look as it should, and make it so. Must not know: JSON, how anything is mended."""

from __future__ import annotations

from dari.engine.base import Engine
from dari.reconcile import doctor


async def examine(eng: Engine) -> list[str]:
    """What differs, a line each; nothing is changed. Raises Internal."""
    return [str(op) for op in (await doctor.examine(eng.ctx)).ops]


async def mend(eng: Engine) -> list[str]:
    """Mend it; what was done, a line each. Raises Internal."""
    return [str(op) for op in (await doctor.mend(eng.ctx)).ops]

"""doctor: is everything as it should be, and make it so. Must not know: JSON, how anything is found or mended."""

from __future__ import annotations

from dari.engine.base import Engine
from dari.model.finding import Finding
from dari.reconcile import doctor


async def examine(eng: Engine) -> list[Finding]:
    """What is not as it should be, the worst first; nothing is changed. Raises Internal."""
    return await doctor.examine(eng.ctx)


async def mend(eng: Engine) -> list[tuple[Finding, bool]]:
    """Mend what is dari's: what was found, each with whether it is gone now. Raises Internal."""
    return [(each.finding, each.is_mended) for each in await doctor.mend(eng.ctx)]

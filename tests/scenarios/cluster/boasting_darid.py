"""darid that believes its kernel can encrypt, whatever it can."""

from __future__ import annotations

import sys

from dari.daemon.main import main
from dari.kernel.host import Kernel


def has_wireguard(self: Kernel) -> bool:
    return True


Kernel.has_wireguard = has_wireguard  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main())

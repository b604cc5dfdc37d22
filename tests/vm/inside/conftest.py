"""The fixtures of the kernel tier and of the scenarios; a machine's darid gets time to start on a slow processor."""

from __future__ import annotations

from tests.kernel.conftest import pytest_configure, pytest_pyfunc_call
from tests.scenarios.conftest import machine, node

__all__ = ["machine", "node", "pytest_configure", "pytest_pyfunc_call"]

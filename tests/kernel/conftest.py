"""Tests marked `kernel_ns` run in a thread of their own, in a network and a mount namespace that end with it.

The pytest process keeps its own namespaces. What a test starts from its thread (programs, threads, sockets) is in
the thrown-away ones too.
"""

from __future__ import annotations

import inspect
import os
import threading
from typing import Any

import pytest

from dari.kernel import rtnetlink, syscalls
from dari.kernel.netlink import Netlink


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "kernel_ns: runs in a throw-away network and mount namespace (needs root)"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if pyfuncitem.get_closest_marker("kernel_ns") is None or inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    if os.geteuid() != 0:
        pytest.skip("needs root")
    names = pyfuncitem._fixtureinfo.argnames
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in names}
    failures: list[BaseException] = []

    def body() -> None:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS)
            syscalls.mount("none", "/", syscalls.MS_REC | syscalls.MS_PRIVATE)
            # `ip netns add` leaves its name in a folder of the machine's.
            os.makedirs("/run/netns", exist_ok=True)
            syscalls.mount("tmpfs", "/run/netns", 0, "tmpfs")
            with Netlink() as sock:
                sock.call(rtnetlink.set_link("lo", is_up=True))
            pyfuncitem.obj(**arguments)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return True

"""A registry on the machine's loopback, which stands for Docker Hub by the mirror table."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import wait_for

REGISTRY = "127.0.0.1:5000"


@pytest.fixture(scope="module")
def registry(machine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address. darid was started again with it as Docker Hub's mirror."""
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry")
    folder = tmp_path_factory.mktemp("registry")
    settings = folder / "config.yml"
    settings.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http: {{addr: {REGISTRY}}}\n"
    )
    process = subprocess.Popen(
        ["nsenter", "-t", str(machine.holder.pid), "-n", "docker-registry", "serve", str(settings)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        machine.kill(15)
        machine.config_file().write_text(json.dumps({"registry-mirrors": [f"http://{REGISTRY}"]}))
        machine.start()
        # The first push waits for the registry's start.
        wait_for("the registry", lambda: machine.run("curl", "-s", f"http://{REGISTRY}/v2/", check=False))
        yield REGISTRY
    finally:
        process.terminate()
        process.wait(10 * PATIENCE)


@pytest.fixture
def store(machine: Any) -> Path:
    """Where the machine's images lie."""
    return Path(machine.folder) / "data" / "storage"

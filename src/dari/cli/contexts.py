"""Docker's contexts: the engine a name stands for, as `docker context create` has written it down.

Read only: `docker context` makes and removes them. Where they lie: ~/.docker/contexts, or below DOCKER_CONFIG.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import MutableMapping

from dari.cli.context import Failed


def use(name: str, environ: MutableMapping[str, str]) -> str | None:
    """The engine of a context, None of `default`; its certificates become those of the environment. Raises Failed."""
    if name in ("", "default"):
        return None
    folder = environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    own = hashlib.sha256(name.encode()).hexdigest()
    try:
        with open(f"{folder}/contexts/meta/{own}/meta.json", encoding="utf-8") as file:
            endpoint = json.load(file)["Endpoints"]["docker"]
            host = endpoint["Host"]
    except FileNotFoundError:
        raise Failed(f'context "{name}" not found: docker context ls shows which there are') from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failed(f'context "{name}" cannot be read: {error}') from error
    certificates = f"{folder}/contexts/tls/{own}/docker"
    if os.path.isdir(certificates):
        environ["DOCKER_CERT_PATH"] = certificates
        environ["DOCKER_TLS_VERIFY"] = "" if endpoint.get("SkipTLSVerify") else "1"
        environ["DOCKER_TLS"] = "1"
    return str(host)

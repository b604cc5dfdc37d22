"""`dari login`, `dari logout`, and the credentials other verbs send: Docker's own `config.json`."""

from __future__ import annotations

import base64
import json
import os
import sys
from typing import Any

from dari.cli.context import Context, Failed
from dari.cli.flags import Flag, Options, verb
from dari.cli.reference import DEFAULT_REGISTRY, registry_of


def config_path() -> str:
    """Where Docker's client keeps its configuration."""
    folder = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    return os.path.join(folder, "config.json")


def auth_header(reference: str) -> dict[str, str]:
    """`X-Registry-Auth` for an image reference; nothing when there are no credentials. Raises Failed."""
    registry = registry_of(reference)
    found = _credentials(_load(), registry)
    if found is None:
        return {}
    text = json.dumps({**found, "serveraddress": registry})
    return {"X-Registry-Auth": base64.urlsafe_b64encode(text.encode()).decode()}


def registry_config() -> dict[str, str]:
    """`X-Registry-Config` for a build: all credentials that are stored. Raises Failed."""
    config = _load()
    found = {}
    for registry in config.get("auths") or {}:
        credentials = _credentials(config, registry)
        if credentials is not None:
            found[registry] = credentials
    if not found:
        return {}
    return {"X-Registry-Config": base64.urlsafe_b64encode(json.dumps(found).encode()).decode()}


@verb(
    "login",
    "[OPTIONS] [SERVER]",
    "Authenticate to a registry",
    Flag("password", "text", "Password", "p"),
    Flag("password-stdin", "bool", "Take the password from STDIN"),
    Flag("username", "text", "Username", "u"),
    most=1,
)
def login(context: Context, options: Options) -> int:
    registry = options.arguments[0] if options.arguments else DEFAULT_REGISTRY
    username, password = options.text("username"), options.text("password")
    if options.on("password-stdin"):
        if not username:
            raise Failed("the --password-stdin option requires --username to be set")
        password = sys.stdin.read().rstrip("\r\n")
    elif not (username and password):
        if not os.isatty(0):
            raise Failed("cannot perform an interactive login from a non-TTY device")
        import getpass

        username = username or input("Username: ")
        password = password or getpass.getpass("Password: ")
    auth = {"username": username, "password": password, "serveraddress": registry}
    done = context.docker.post("/auth", auth) or {}
    config = _load()
    config.setdefault("auths", {})[registry] = {
        "auth": base64.b64encode(f"{username}:{password}".encode()).decode()
    }
    _save(config)
    context.say(done.get("Status") or "Login Succeeded")
    return 0


@verb("logout", "[SERVER]", "Log out from a registry", most=1)
def logout(context: Context, options: Options) -> int:
    registry = options.arguments[0] if options.arguments else DEFAULT_REGISTRY
    config = _load()
    if config.get("auths", {}).pop(registry, None) is None:
        context.say(f"Not logged in to {registry}")
        return 0
    _save(config)
    context.say(f"Removing login credentials for {registry}")
    return 0


def _credentials(config: dict[str, Any], registry: str) -> dict[str, str] | None:
    helper = (config.get("credHelpers") or {}).get(registry) or config.get("credsStore")
    if helper:
        return _ask_helper(helper, registry)
    entry = (config.get("auths") or {}).get(registry) or {}
    if entry.get("identitytoken"):
        return {"identitytoken": entry["identitytoken"]}
    if not entry.get("auth"):
        return None
    try:
        username, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
    except ValueError as error:
        raise Failed(f"{config_path()}: auth of {registry} is not base64: {error}") from error
    return {"username": username, "password": password.rstrip("\0")}


def _ask_helper(helper: str, registry: str) -> dict[str, str] | None:
    import subprocess

    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            input=registry,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise Failed(
            f"{config_path()} names the credential program docker-credential-{helper}: {error}"
        ) from error
    if done.returncode != 0:
        return None
    found = json.loads(done.stdout)
    if found.get("Username") == "<token>":
        return {"identitytoken": found["Secret"]}
    return {"username": found["Username"], "password": found["Secret"]}


def _load() -> dict[str, Any]:
    try:
        with open(config_path(), encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Failed(f"{config_path()} is not JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def _save(config: dict[str, Any]) -> None:
    path = config_path()
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    beside = f"{path}.{os.getpid()}.new"
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(config, file, indent="\t")
    os.replace(beside, path)

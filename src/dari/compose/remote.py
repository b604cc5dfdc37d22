"""Compose files that live in a git repository: `-f https://host/repo.git#branch:folder`, and the same in `include` and
`extends`. Fetched by the user's git, one commit deep, and kept by commit. Reference: Docker Compose's remote resources.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

from dari.compose.record import Record

_COMMIT = re.compile(r"[0-9a-f]{40}")


class RemoteError(Exception):
    """The repository, the branch or the folder cannot be had; the text is for the user."""


class Reference(Record):
    """Where in which repository: `ref` is a branch, a tag or a commit, "" the default branch."""

    url: str
    ref: str = ""
    folder: str = ""

    @property
    def name(self) -> str:
        """What its folder is called: the project's name where nothing else says one."""
        last = os.path.basename(self.url.rstrip("/").replace(":", "/")).removesuffix(".git")
        return "repository" if last in ("", ".", "..") else last


def parse(text: str) -> Reference | None:
    """What `URL[#REF[:FOLDER]]` means; None for what is no git repository, a path above all."""
    url, _, fragment = text.partition("#")
    if url.startswith("github.com/"):
        url = f"https://{url}"
    is_web = url.startswith(("https://", "http://")) and url.endswith(".git")
    if not is_web and not url.startswith(("git://", "ssh://", "git@", "https://github.com/")):
        return None
    ref, _, folder = fragment.partition(":")
    return Reference(url=url, ref=ref, folder=folder.strip("/"))


def fetch(reference: Reference, environ: Mapping[str, str]) -> str:
    """The path of the commit's files on this host: the repository's root, or the folder in it. Raises RemoteError."""
    if environ.get("COMPOSE_EXPERIMENTAL_GIT_REMOTE", "").lower() in ("0", "false"):
        raise RemoteError(f"{reference.url}: git remotes are switched off by COMPOSE_EXPERIMENTAL_GIT_REMOTE")
    if reference.ref.startswith("-"):
        raise RemoteError(f"{reference.url}: invalid reference {reference.ref!r}")
    commit = _commit(reference, environ)
    kept = os.path.join(_cache(environ), commit)
    root = os.path.join(kept, reference.name)
    if not os.path.isdir(root):
        _download(reference, commit, kept, environ)
    found = os.path.realpath(os.path.join(root, reference.folder))
    if os.path.commonpath([found, os.path.realpath(root)]) != os.path.realpath(root):
        raise RemoteError(f"{reference.url}: {reference.folder} leads out of the repository")
    if not os.path.exists(found):
        raise RemoteError(f"{reference.url}: no {reference.folder} in commit {commit[:12]}")
    return found


def locate(text: str, environ: Mapping[str, str], names: Sequence[str]) -> str:
    """The path on this host of the Compose file `text` leads to, one of `names` where that is a folder; "" for what
    is no git repository. Raises RemoteError."""
    reference = parse(text)
    if reference is None:
        return ""
    path = fetch(reference, environ)
    if not os.path.isdir(path):
        return path
    for name in names:
        if os.path.isfile(os.path.join(path, name)):
            return os.path.join(path, name)
    raise RemoteError(f"{text}: no configuration file provided: not found")


def _cache(environ: Mapping[str, str]) -> str:
    base = environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "dari", "compose")


def _commit(reference: Reference, environ: Mapping[str, str]) -> str:
    if _COMMIT.fullmatch(reference.ref):
        return reference.ref
    wanted = reference.ref or "HEAD"
    told = _git(environ, "ls-remote", "--", reference.url, wanted, f"{wanted}^{{}}")
    found = {name: commit for commit, _, name in (line.partition("\t") for line in told.splitlines())}
    # A tag of its own is followed to the commit it names.
    for name in (wanted, f"refs/heads/{wanted}", f"refs/tags/{wanted}^{{}}", f"refs/tags/{wanted}"):
        if name in found:
            return found[name]
    raise RemoteError(f"{reference.url}: couldn't find remote ref {wanted}")


def _download(reference: Reference, commit: str, kept: str, environ: Mapping[str, str]) -> None:
    """Into a folder beside, renamed into place when it is whole."""
    os.makedirs(os.path.dirname(kept), exist_ok=True)
    made = tempfile.mkdtemp(prefix=".new-", dir=os.path.dirname(kept))
    root = os.path.join(made, reference.name)
    try:
        _git(environ, "init", "--quiet", root)
        _git(environ, "fetch", "--quiet", "--depth=1", "--", reference.url, commit, folder=root)
        _git(environ, "checkout", "--quiet", "--detach", "FETCH_HEAD", folder=root)
        os.replace(made, kept)
    except OSError as error:
        # Somebody else was faster; theirs is as good.
        if not os.path.isdir(os.path.join(kept, reference.name)):
            raise RemoteError(f"{kept}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _git(environ: Mapping[str, str], *words: str, folder: str | None = None) -> str:
    """What git says on stdout, run in `folder`. It asks nobody for passwords."""
    try:
        done = subprocess.run(
            ["git", *words],
            capture_output=True,
            text=True,
            env={**environ, "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            cwd=folder,
            check=False,
        )
    except OSError as error:
        raise RemoteError(f"git: {error.strerror or error}") from None
    if done.returncode:
        said = done.stderr.strip() or f"exit status {done.returncode}"
        raise RemoteError(f"git {words[0]}: {said}")
    return done.stdout

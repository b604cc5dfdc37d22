"""Verbs of `dari compose` that are those of `dari` on a service's container: attach, commit, cp, export, stats."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dari.cli.context import Context
from dari.cli.output import write_out
from dari.compose.verbs.exec import one_container

if TYPE_CHECKING:
    from dari.compose.session import Session


class _OnSession(Context):
    """A context that talks to the engine the session talks to."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._docker = session.docker


def _container(session: Session, options: Any, *, is_running: bool = False) -> str:
    return one_container(session, options.service, options.index, is_running=is_running).id


def _only_told(session: Session, options: Any, word: str, *, is_running: bool = False) -> int:
    """What `--dry-run` says instead of the work."""
    container = one_container(session, options.service, options.index, is_running=is_running)
    progress = session.progress()
    progress.end(f"Container {container.name}", word)
    progress.close()
    return 0


def attach(session: Session, options: Any) -> int:
    """`attach SERVICE`: joins the container; its exit code, 0 after detaching."""
    from dari.cli.attach import attach as verb

    if session.flags.is_dry_run:
        return _only_told(session, options, "Attached", is_running=True)
    words = [_container(session, options, is_running=True)]
    if options.detach_keys:
        words.insert(0, f"--detach-keys={options.detach_keys}")
    if options.no_stdin:
        words.insert(0, "--no-stdin")
    if not options.sig_proxy:
        words.insert(0, "--sig-proxy=false")
    return verb(_OnSession(session), words)


def commit(session: Session, options: Any) -> int:
    """`commit SERVICE [REPOSITORY[:TAG]]`: an image of the container's changes."""
    from dari.cli.container import commit as verb

    if session.flags.is_dry_run:
        return _only_told(session, options, "Committed")
    words = [f"--author={options.author or ''}", f"--message={options.message or ''}"]
    words += [f"--change={one}" for one in options.change]
    words += [f"--pause={'true' if options.pause else 'false'}", "--", _container(session, options)]
    return verb(_OnSession(session), words + list(options.references[:1]))


def cp(session: Session, options: Any) -> int:
    """`cp SERVICE:PATH PATH|-` and `cp PATH|- SERVICE:PATH`: from the first container, into all of them."""
    from dari.cli.copy import cp as verb
    from dari.cli.copy import split
    from dari.compose.session import UserError

    source, target = split(options.source), split(options.target)
    if source[0] and target[0]:
        raise UserError("copying between services is not supported")
    service = source[0] or target[0]
    if not service:
        raise UserError("unknown copy direction")
    found = [one for one in session.containers([service]) if options.all or not one.is_oneoff]
    if options.index:
        found = [one for one in found if one.number == options.index]
    if not found:
        raise UserError(f'no container found for service "{service}"')
    flags = [f"--{name}" for name in ("archive", "follow-link") if getattr(options, name.replace("-", "_"))]
    progress = session.progress()
    for one in found[:1] if source[0] else found:
        if source[0]:
            pair, told = (f"{one.id}:{source[1]}", target[1]), f"{one.name}:{source[1]} to {target[1]}"
        else:
            pair, told = (source[1], f"{one.id}:{target[1]}"), f"{source[1]} to {one.name}:{target[1]}"
        progress.begin(one.name, "Copying", told)
        if not session.flags.is_dry_run:
            verb(_OnSession(session), [*flags, "--quiet", "--", *pair])
        progress.end(one.name, "Copied", told)
    progress.close()
    return 0


def export(session: Session, options: Any) -> int:
    """`export SERVICE`: the container's filesystem as a tar archive on stdout or into a file."""
    from dari.compose.session import UserError

    if session.flags.is_dry_run:
        return _only_told(session, options, "Exported")
    container = _container(session, options)
    if not options.output and os.isatty(1):
        raise UserError("output option is required when exporting to terminal")
    return write_out(_OnSession(session), options.output or "", "export", f"/containers/{container}/export")


def stats(session: Session, options: Any) -> int:
    """`stats [SERVICE]`: the resources the project's containers use."""
    from dari.cli.stats import stats as verb
    from dari.compose.session import UserError

    found = session.containers(options.services, all=options.all)
    if not found:
        raise UserError("no containers to show")
    words = [name for name in ("no-stream", "no-trunc") if getattr(options, name.replace("-", "_"))]
    words = [f"--{name}" for name in words]
    if options.format:
        words.append(f"--format={options.format}")
    return verb(_OnSession(session), [*words, "--", *(one.id for one in found)])


def template(form: str, titles: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Go template says; `titles`: field to the column's title, for `table TEMPLATE`."""
    import re

    from dari.cli.table import table
    from dari.cli.template import Template

    if form.startswith("table "):
        form = form.removeprefix("table ").replace("\\t", "\t")
        heads = {**{field: field.upper() for field in re.findall(r"\.([A-Za-z]\w*)", form)}, **titles}
        lines = [Template(form).render(item).split("\t") for item in (heads, *rows)]
        return table(lines[0], lines[1:])
    parsed = Template(form.replace("\\t", "\t").replace("\\n", "\n"))
    return "\n".join(parsed.render(row) for row in rows)

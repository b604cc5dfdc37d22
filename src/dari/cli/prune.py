"""What all prune commands share: the question before, the sum after."""

from __future__ import annotations

from collections.abc import Sequence

from dari.cli.context import Context
from dari.cli.flags import Options
from dari.units import format_size


def ask(options: Options, warning: str) -> bool:
    """Whether the user agrees (`--force` agrees)."""
    if options.on("force"):
        return True
    try:
        return input(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ").strip().lower() in (
            "y",
            "yes",
        )
    except EOFError:
        return False


def report(context: Context, title: str, names: Sequence[str] | None, space: int | None) -> None:
    """The list of what went, and the space that came back."""
    if names:
        context.say("\n".join([title, *names, ""]))
    if space is not None:
        context.say(f"Total reclaimed space: {format_size(space)}")

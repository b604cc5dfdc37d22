"""What all `ls` commands share: `--filter`, `--quiet`, `--no-trunc` and `--format` over rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dari.cli.context import Context
from dari.cli.flags import Flag, Options, UsageError
from dari.cli.table import table

FILTER = Flag("filter", "list", "Filter output based on conditions provided", "f")
FORMAT = Flag("format", "text", "Format output: 'table', 'table TEMPLATE', 'json', or a Go template")
NO_TRUNC = Flag("no-trunc", "bool", "Don't truncate output")
QUIET = Flag("quiet", "bool", "Only display IDs", "q")


def filters(options: Options) -> dict[str, list[str]] | None:
    """The API's `filters` of `--filter name=value`, None without any. Raises UsageError."""
    found: dict[str, list[str]] = {}
    for text in options.texts("filter"):
        name, separator, value = text.partition("=")
        if not separator:
            raise UsageError(f'invalid argument "{text}" for "-f, --filter" flag: expected name=value')
        found.setdefault(name.strip().lower(), []).append(value.strip())
    return found or None


# Of fields that are in no listing's own columns.
_HEADS = {
    "CreatedAt": "CREATED AT",
    "LocalVolumes": "LOCAL VOLUMES",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
}


def labels(values: Mapping[str, str] | None) -> dict[str, Any]:
    """The fields `Labels` and `Label` of a row."""
    found = dict(values or {})
    return {
        "Labels": ",".join(f"{key}={found[key]}" for key in sorted(found)),
        "Label": lambda name: found.get(name, ""),
    }


def _label_head(name: str) -> str:
    """`cpu usage` of `com.example.cpu-usage`, as Docker has it above such a column."""
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def show(
    context: Context, options: Options, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> int:
    """Print rows as a table of `columns` (title: field), or as `--format` says."""
    form = options.text("format")
    if not form or form == "table":
        context.say(table(list(columns), [[str(row[field]) for field in columns.values()] for row in rows]))
        return 0
    if form == "json":
        form = "{{json .}}"
    from dari.cli.template import Fields, Template

    if form.startswith("table "):
        form = form.removeprefix("table ").replace("\\t", "\t")
        titles = {field: title for title, field in columns.items()}
        fields: dict[str, Any] = {
            key: titles.get(key) or _HEADS.get(key, key.upper()) for row in rows[:1] for key in row
        } or titles
        if "Label" in fields:
            fields["Label"] = _label_head
        # Of an empty list not all fields are known.
        head = Fields(fields) if rows else fields
        template = Template(form)
        lines = [template.render(item).split("\t") for item in (head, *map(Fields, rows))]
        context.say(table(lines[0], lines[1:]))
        return 0
    template = Template(form.replace("\\t", "\t").replace("\\n", "\n"))
    for row in rows:
        context.say(template.render(Fields(row)))
    return 0

"""`dari search`: repositories of Docker Hub, or of a registry that speaks its old API."""

from __future__ import annotations

from dari.cli.context import Context
from dari.cli.flags import Flag, Options, verb
from dari.cli.listing import FILTER, FORMAT, NO_TRUNC, filters, show
from dari.cli.table import shortened

_DESCRIPTION = 45


@verb(
    "search",
    "[OPTIONS] TERM",
    "Search Docker Hub, or another registry, for images",
    FILTER,
    FORMAT,
    Flag("limit", "int", "Max number of search results"),
    NO_TRUNC,
    least=1,
    most=1,
)
def search(context: Context, options: Options) -> int:
    found = context.docker.get(
        "/images/search",
        term=options.arguments[0],
        limit=options.text("limit") or None,
        filters=filters(options),
    )
    rows = []
    for row in found or ():
        description = " ".join(str(row.get("description") or "").split())
        rows.append(
            {
                "Name": row["name"],
                "Description": description
                if options.on("no-trunc")
                else shortened(description, _DESCRIPTION),
                "StarCount": row.get("star_count", 0),
                "IsOfficial": "[OK]" if row.get("is_official") else "",
            }
        )
    columns = {"NAME": "Name", "DESCRIPTION": "Description", "STARS": "StarCount", "OFFICIAL": "IsOfficial"}
    return show(context, options, columns, rows)

"""`dari doctor`: what is not as it should be, and what to do; `--fix` has the engine mend what is its own.

Exit status: 0 nothing is wrong (or all of it was mended), 1 something is, 2 the engine could not be asked.
"""

from __future__ import annotations

from typing import Any

from dari.cli.context import Context, Failed
from dari.cli.flags import Flag, Options, verb
from dari.cli.table import fitted, terminal_width

_HEADS = {"error": "Broken", "warning": "Worth mending", "note": "Worth knowing"}


@verb(
    "doctor",
    "[OPTIONS]",
    "Find what is not as it should be, in the network and under it, and mend it",
    Flag("fix", "bool", "Mend what is dari's own; nothing else is touched"),
    Flag("json", "bool", "Print the findings as JSON"),
    Flag("quiet", "bool", "Print nothing; the exit status tells", "q"),
    most=0,
)
def doctor(context: Context, options: Options) -> int:
    from dari.client.errors import ApiError, ClientError

    is_fixing = options.on("fix")
    try:
        path = "/dari/v1/doctor"
        found = context.docker.post(path) if is_fixing else context.docker.get(path)
    except ApiError as error:
        if error.status == 404:
            raise Failed("the engine is not dari: it has no doctor", 2) from error
        raise Failed(str(error), 2) from error
    except ClientError as error:
        raise Failed(str(error), 2) from error
    findings: list[dict[str, Any]] = found["Findings"]
    if options.on("json"):
        import json

        context.say(json.dumps(findings, indent=2))
    elif not options.on("quiet"):
        lines = text(findings, is_fixing=is_fixing).split("\n")
        context.say("\n".join(fitted(lines, terminal_width())))
    return 1 if any(_counts(each) for each in findings) else 0


def _counts(finding: dict[str, Any]) -> bool:
    return finding["Severity"] != "note" and not finding["IsMended"]


def text(findings: list[dict[str, Any]], *, is_fixing: bool) -> str:
    """Grouped by severity, what was mended first; a last line that sums up."""
    lines: list[str] = []
    mended = [each for each in findings if each["IsMended"]]
    if mended:
        lines += _group("Mended", mended, has_advice=False)
    for severity, head in _HEADS.items():
        own = [each for each in findings if each["Severity"] == severity and not each["IsMended"]]
        if own:
            lines += _group(head, own, has_advice=True)
    lines.append(_summary(findings, is_fixing=is_fixing))
    return "\n".join(lines)


def _group(head: str, findings: list[dict[str, Any]], *, has_advice: bool) -> list[str]:
    lines = [f"{head}:"]
    last = ""
    for each in sorted(findings, key=lambda one: (one["Object"], one["Id"])):
        if each["Object"] != last:
            last = each["Object"]
            lines.append(f"  {last}")
        lines.append(f"    {each['Text']}  [{each['Id']}]")
        if has_advice and each["Cause"]:
            lines.append(f"      why: {each['Cause']}")
        if has_advice and each["Advice"]:
            lines.append(f"      do:  {each['Advice']}")
    return [*lines, ""]


def _summary(findings: list[dict[str, Any]], *, is_fixing: bool) -> str:
    left = [each for each in findings if _counts(each)]
    mended = sum(1 for each in findings if each["IsMended"])
    if not left:
        return f"All is well; {_number(mended, 'finding')} mended." if mended else "All is well."
    ours = sum(1 for each in left if each["IsOurs"])
    said = f"{_number(len(left), 'finding')}"
    if mended:
        return f"{_number(mended, 'finding')} mended, {len(left)} left for you."
    if is_fixing:
        return f"{said}, none of them mended."
    return (
        f"{said}; dari doctor --fix mends {ours} of them."
        if ours
        else f"{said}, none of them dari's to mend."
    )


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"

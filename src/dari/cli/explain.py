"""`dari explain`: why a packet from A reaches B, or does not."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

from dari.cli.compose_lines import line_of
from dari.cli.context import Context, Failed
from dari.cli.flags import Flag, Options, UsageError, verb
from dari.cli.table import fitted, terminal_width

USAGE_CODE = 2
JSON = Flag("json", "bool", "Print the answer of the engine as JSON")
NO_PROBE = Flag("no-probe", "bool", "Send no packet, look at what should be and what is")
TIMEOUT = Flag(
    "timeout", "text", "Seconds to wait for each packet, and for another node where more than 2", default="1"
)


@verb(
    "explain",
    "[OPTIONS] FROM TO[:PORT][/tcp|udp|icmp]",
    "Explain why FROM reaches TO or does not; either may be a container, host, outside, an address, or NAME@NODE (exit "
    "status 0: it does, 1: it does not, 2: the question is wrong)",
    JSON,
    NO_PROBE,
    TIMEOUT,
    Flag("rules", "bool", "Print every nftables chain and rule the packet met"),
    least=2,
    most=2,
    usage_code=USAGE_CODE,
)
def explain(context: Context, options: Options) -> int:
    source, target = options.arguments
    to, port, protocol = destination(target)
    body = {"From": source, "To": to, "Port": port, "Protocol": protocol}
    answer = ask(context, "/dari/v1/explain", {**body, **common(options)})
    for cause in answer.get("Causes", ()):
        cause["Line"] = line_of(cause.get("Files", ()), cause.get("Key", ()), cause.get("WorkingDir", ""))
    if options.on("json"):
        context.say(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        context.say("\n".join(fitted(text(answer, with_rules=options.on("rules")), terminal_width())))
    return 0 if answer["IsReachable"] else 1


def destination(word: str) -> tuple[str, int, str]:
    """`db:5432/udp`, `[fd00::2]:53`, `fd00::2` as end, port (0: none) and protocol. Raises UsageError."""
    rest, slash, protocol = word.partition("/")
    if slash and protocol not in ("tcp", "udp", "icmp"):
        raise UsageError(f'invalid protocol "{protocol}" in "{word}": give tcp, udp or icmp')
    port = ""
    if rest.startswith("["):
        to, closed, behind = rest[1:].partition("]")
        if not closed or (behind and not behind.startswith(":")):
            raise UsageError(f'invalid address in "{word}": write [ADDRESS]:PORT')
        port, has_port = behind[1:], bool(behind)
    elif _is_address(rest):
        to, has_port = rest, False
    else:
        to, colon, port = rest.partition(":")
        has_port = bool(colon)
    if not to:
        raise UsageError(f'"{word}" names nobody')
    if not has_port:
        return to, 0, protocol
    if not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise UsageError(f'invalid port "{port}" in "{word}": give a number from 1 to 65535')
    return to, int(port), protocol


def _is_address(word: str) -> bool:
    try:
        ip_address(word)
    except ValueError:
        return False
    return True


def common(options: Options) -> dict[str, Any]:
    """The part of a question that explain and verify share. Raises UsageError."""
    try:
        timeout = float(options.text("timeout"))
    except ValueError:
        raise UsageError(f'invalid timeout "{options.text("timeout")}": give seconds') from None
    return {"Probe": not options.on("no-probe"), "Timeout": timeout}


def ask(context: Context, path: str, body: dict[str, Any]) -> Any:
    """The engine's answer. Raises Failed with exit code 2: not being able to tell is not "no"."""
    from dari.client.errors import ApiError, ClientError

    try:
        return context.docker.post(path, body)
    except ApiError as error:
        if error.status == 404 and "page not found" in error.message:
            raise Failed(
                f"this engine cannot do that: {error.message} (is it dari's?)", USAGE_CODE
            ) from error
        raise Failed(str(error), USAGE_CODE) from error
    except (ClientError, OSError) as error:
        raise Failed(str(error), USAGE_CODE) from error


# For people


def text(answer: dict[str, Any], *, with_rules: bool = False) -> list[str]:
    """An explanation as lines: the verdict, the reason and what to do, then the way as it was walked."""
    door = f":{answer['To']['Port']}" if answer["To"]["Port"] else ""
    kind = f"/{answer['To']['Protocol']}" if answer["To"]["Protocol"] else ""
    asked = answer.get("AskedNode", "")
    lines = [f"{answer['From']['Name']} → {answer['To']['Name']}{door}{kind}"]
    lines += [f"as node {asked} tells it"] if asked else []
    found, wanted = answer["Found"], answer["Wanted"]
    lines.append(verdict(answer))
    if answer["Conclusion"] == "drift" and wanted["Verdict"] != found["Verdict"]:
        lines.append(f"  asked for: {_expected(wanted)}")
    lines += [f"  {each}" for each in cause_lines(answer["Causes"], answer["Text"])]
    if answer["Differences"]:
        lines += ["  what would mend it:", *(f"    {each}" for each in shortened(answer["Differences"]))]
    if answer["Advice"]:
        lines.append(f"  to do: {answer['Advice']}")
    decider = found["Hops"][found["DecidedBy"]] if found["DecidedBy"] >= 0 else None
    hops = [
        *({**each, "IsRemark": False} for each in answer["Names"]),
        *(
            {**each, "IsRemark": each is not decider}
            for each in found["Hops"]
            if found["Hops"] != answer["Names"]
        ),
    ]
    lines += ["", *table([*_hop_rows(hops), *_probe_rows(answer)])]
    if with_rules and answer["Probe"]:
        steps = answer["Probe"]["Steps"]
        # On one host the order says it.
        is_far = any("@" in each["Where"] for each in steps)
        told = [f"  {each['Where']}  {_step(each)}" if is_far else f"  {_step(each)}" for each in steps]
        lines += ["", "Rules the packet met:", *told]
    return lines


def _hop_rows(hops: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """The answer's way back is one line as long as nothing is wrong with it."""
    rows = [_row(each) for each in hops if not each.get("IsAnswer")]
    back = [each for each in hops if each.get("IsAnswer")]
    if not back:
        return rows
    if all(each["IsOk"] for each in back):
        return [*rows, ("✓", "answer", back[-1]["Where"], f"comes back the same way ({len(back)} hops)")]
    return [*rows, *(_row(each, "answer: ") for each in back)]


def _row(hop: dict[str, Any], before: str = "") -> tuple[str, str, str, str]:
    name, _, node = hop["Where"].rpartition("@")
    # Of another node its own words are `node b`, and a container's name alone.
    who = "the host" if hop["Where"] == "host" else f"node {node}" if name == "host" else name or hop["Where"]
    text = hop["Text"].removeprefix(f"{who}: ").removeprefix(f"{who}, ")
    sign = "✓" if hop["IsOk"] else "!" if hop["IsRemark"] else "✗"
    return sign, hop["Stage"], hop["Where"], before + text


def _probe_rows(answer: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    probe = answer["Probe"]
    if not probe:
        return []
    took = f"{probe['Seconds'] * 1000:.1f} ms"
    sign = "✓" if probe["Verdict"] == "delivered" else "✗"
    rows = [(sign, "probe", answer["From"]["Name"], f"{probe['Outcome']}: {probe['Text']} ({took})")]
    own = "@" + answer.get("AskedNode", "").partition(" ")[0]
    came = [
        each
        for each in probe.get("Passed", ())
        if "@" in each["Where"] and not each["Where"].endswith(own) and each["Hook"] == "input"
    ]
    if came and not came[0]["IsAnswer"]:
        rows.append(("✓", "seen", came[0]["Where"], "the packet came in there"))
    if probe["Caught"]:
        rows.append(("✗", "caught", probe["Caught"]["Where"], _step(probe["Caught"])))
    elif probe["Untraced"]:
        rows.append(("·", "trace", "", probe["Untraced"]))
    return rows


def _step(step: dict[str, Any]) -> str:
    way = "answer: " if step["IsAnswer"] else ""
    rule = step["Rule"] or (f"rule {step['Handle']}" if step["Handle"] else "policy")
    place = f"{step['Family']} {step['Table']} {step['Chain']}"
    return f"{way}{place}: {rule} → {step['Verdict']}"


def table(rows: list[tuple[str, str, str, str]]) -> list[str]:
    """Signs, stages and places in columns."""
    stage = max((len(row[1]) for row in rows), default=0)
    place = max((len(row[2]) for row in rows), default=0)
    return [f"  {row[0]} {row[1]:<{stage}}  {row[2]:<{place}}  {row[3]}".rstrip() for row in rows]


_REMARKS = {
    "meant": "This is what was asked for.",
    "application": "The network is fine.",
    "foreign": "The rule is not dari's.",
    "beyond": "That is none of dari's making.",
    "away": "It lies between the hosts, or at the other one.",
    "unexplained": "Neither what was asked for nor what the kernel has explains it.",
}


def verdict(answer: dict[str, Any]) -> str:
    """The last word, in one line."""
    sign = "✓" if answer["IsReachable"] else "✗"
    text = str(answer["Text"]).rstrip(".")
    # What nobody wanted so, like a name nobody has, was not asked for.
    is_nobodys = answer["Conclusion"] == "meant" and not answer["Causes"]
    remark = "" if is_nobodys else _REMARKS.get(answer["Conclusion"], "")
    return f"{sign} {text}{'' if text.endswith('?') else '.'} {remark}".rstrip()


def shortened(lines: list[str], most: int = 20) -> list[str]:
    """The first of them, and how many more there are: --json has them all."""
    more = len(lines) - most
    return [*lines[:most], f"and {more} more (--json)"] if more > 1 else lines


def cause_lines(causes: list[dict[str, Any]], said: str = "") -> list[str]:
    """Who wanted it so, with the line of the Compose file where it is found. `said`: what was told already."""
    lines = []
    for cause in causes:
        where = cause.get("Line", "")
        setting = f" [{cause['Setting']}]" if cause.get("Setting") and not where else ""
        if cause["Text"] == said and (where or setting):
            lines.append(f"because of {where or cause['Setting']}")
            continue
        lines.append(f"because {cause['Text']}{setting}" + (f"\n      {where}" if where else ""))
    return lines


def _expected(walk: dict[str, Any]) -> str:
    if walk["DecidedBy"] < 0:
        return str(walk["Verdict"])
    return f"{walk['Verdict']}: {walk['Hops'][walk['DecidedBy']]['Text']}"

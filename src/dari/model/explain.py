"""What `explain` and `verify` answer: who asks whom, what should happen, what the kernel has, what a packet met.

Encoded under Docker-like field names as version 1 of `/dari/v1/explain` and `/dari/v1/verify`; a field is added
freely, a change of meaning is a new version. Must not know: stores, how anything is found out.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from dari.model.wire import DockerNoun

VERSION = 1

Verdict = Literal["delivered", "dropped", "unreachable", "refused", "unknown"]
Conclusion = Literal["reachable", "meant", "application", "drift", "foreign", "beyond", "away", "unexplained"]


class Question(DockerNoun, frozen=True, kw_only=True):
    """`POST /dari/v1/explain`. `From`: a container, `host` or `outside`; `To`: the same, a name as `From` would
    resolve it, or an address. In a cluster both take `NAME@NODE`; a `From` on another node is asked of that node.
    Without `Port` an echo (ICMP) is asked about; `Protocol` is tcp, udp or icmp. `Probe` false sends nothing but the
    questions for a name outside. `Timeout` in seconds is for each packet, and for each
    answer of another node where it is more than 2."""

    source: str = msgspec.field(name="From", default="")
    target: str = msgspec.field(name="To", default="")
    port: int = 0
    protocol: str = ""
    probe: bool = True
    timeout: float = 1.0


class End(DockerNoun, frozen=True, kw_only=True):
    """One end. `Kind`: container, host, outside, address (nobody's here) or name (without an address). `Address` is
    the one packets go to (or come from), `Port` the one that was asked for."""

    kind: Literal["container", "host", "outside", "address", "name"]
    name: str = ""
    id: str = msgspec.field(name="Id", default="")
    address: str = ""
    port: int = 0
    protocol: str = ""
    project: str = ""
    service: str = ""


class HopLine(DockerNoun, frozen=True, kw_only=True, omit_defaults=True):
    """One decision on the way. `Where`: a container's name, or `host`. `IsOk` false on a hop that is not the
    deciding one is a remark. `Object`: the kernel object that decided, as its key. `IsBeyond`: it is none of dari's."""

    stage: str
    where: str
    text: str
    is_ok: bool
    object: list[str] = []
    cause: str = ""
    is_answer: bool = False
    is_beyond: bool = False


class Walk(DockerNoun, frozen=True, kw_only=True):
    """The way by one picture of the kernel. `DecidedBy`: the index of the hop that ends it, -1 = it arrives."""

    verdict: Verdict
    hops: list[HopLine]
    decided_by: int = -1


class StepLine(DockerNoun, frozen=True, kw_only=True):
    """A chain or rule the probe's packet really met, anybody's. `Rule` is empty for a chain's policy."""

    where: str
    is_answer: bool
    family: str
    table: str
    chain: str
    rule: str
    handle: int
    comment: str
    verdict: str


class PassedLine(DockerNoun, frozen=True, kw_only=True):
    """A hook the packet (or its answer) came through to its end, as the trace saw it."""

    where: str
    hook: str
    is_answer: bool


class ProbeLine(DockerNoun, frozen=True, kw_only=True):
    """The real packet. `Outcome`: open, answered, refused, rejected, unreachable, silent, failed. `Caught`: the step
    that took the question or its answer away. `Untraced`: why there is no trace, empty where there is one. `Passed`:
    the hooks it came through, in order."""

    outcome: str
    verdict: Verdict
    text: str
    seconds: float
    is_delivered: bool
    from_address: str = ""
    steps: list[StepLine] = []
    caught: StepLine | None = None
    untraced: str = ""
    passed: list[PassedLine] = []


class Cause(DockerNoun, frozen=True, kw_only=True, omit_defaults=True):
    """Who wanted it so. `Setting` is what was set, as a command line says it, `Key` the path of keys in a Compose file
    that sets it; `Files` are the project's, as its containers' labels name them."""

    kind: Literal["network", "container", "policy", "host"]
    name: str
    text: str
    setting: str = ""
    key: list[str] = []
    project: str = ""
    service: str = ""
    files: list[str] = []
    working_dir: str = ""


class Explanation(DockerNoun, frozen=True, kw_only=True):
    """`POST /dari/v1/explain`'s answer.

    `Conclusion`: reachable · meant (it is asked for so: `Causes`) · application (the network delivers, nobody
    answers there) · drift (the kernel is not as asked: `Differences` are the steps that would mend it) · foreign
    (somebody else's rule: `Probe.Caught`) · beyond (an interface of the host's own is down or without a cable, or
    nobody on its network answers for the next address) · away (the other end's host is
    down, or does not answer from here) · unexplained (the packet fares otherwise than either picture says).
    `Node`: the other end's, where it is another one (name and address); hops and steps there are `NAME@NODE`.
    `NodeProblem`: why that node did not tell its half, which is guessed from the store then.
    `AskedNode`: the node that answered, where the question starts on another one than was asked (name and address);
    every place is `NAME@NODE` then.
    """

    version: int = VERSION
    source: End = msgspec.field(name="From")
    target: End = msgspec.field(name="To")
    is_reachable: bool
    verdict: Verdict
    conclusion: Conclusion
    text: str
    advice: str = ""
    causes: list[Cause] = []
    differences: list[str] = []
    names: list[HopLine] = []
    wanted: Walk
    found: Walk
    probe: ProbeLine | None = None
    node: str = ""
    node_problem: str = ""
    asked_node: str = ""


class VerifyQuestion(DockerNoun, frozen=True, kw_only=True):
    """`POST /dari/v1/verify`. `Project`: a Compose project's name, empty = all running containers."""

    project: str = ""
    probe: bool = True
    timeout: float = 1.0


class Cell(DockerNoun, frozen=True, kw_only=True):
    """One pair: indices into `Ends` and `Services`. `Wanted`, `Found` and `Probe` (empty where none was sent) are
    verdicts; `IsReachable` is what was asked for; `IsAsAsked`: kernel and packet do the same. `Text` says why not."""

    source: int = msgspec.field(name="From")
    target: int = msgspec.field(name="To")
    wanted: str
    found: str
    probe: str
    is_reachable: bool
    is_as_asked: bool
    text: str = ""


class Service(DockerNoun, frozen=True, kw_only=True):
    """A door of an end: `End` is an index into `Ends`. Port 0 with icmp. `Why`: published, exposed, listening."""

    end: int
    protocol: str
    port: int
    why: list[str]
    published: list[str] = []


class Verification(DockerNoun, frozen=True, kw_only=True):
    """`POST /dari/v1/verify`'s answer. `Findings` are sentences, one for each disagreement; `Differences` the steps
    that would bring the kernel to what was asked."""

    version: int = VERSION
    project: str
    is_as_asked: bool
    ends: list[End]
    networks: dict[str, list[int]]
    services: list[Service]
    cells: list[Cell]
    findings: list[str]
    differences: list[str]
    probes: int
    seconds: float
    untraced: str = ""

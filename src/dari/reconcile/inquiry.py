"""A question on its way to an answer: what is asked, and all that was found out about it so far.

Must not know: how anything is found out, what it comes to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dari.kernel.outside import Places
from dari.kernel.probed import ProbeResult, Shot
from dari.model import explain as nouns
from dari.model.errors import Unsupported
from dari.net.facts import HostFacts
from dari.net.packet import OUTSIDE, Hop, Listeners, Probe
from dari.net.state import HOST, Address
from dari.reconcile import causes, ends, far, lookup, splice
from dari.reconcile.context import Context
from dari.reconcile.ends import Aim, End


@dataclass(slots=True)
class Inquiry:
    """A question on its way to an answer. `name`: what the source would look up, "" where it asks by address."""

    source: End
    target: End
    protocol: str
    port: int
    is_probed: bool
    timeout: float
    name: str = ""
    places: ends.Beyond | None = None
    known: lookup.Known | None = None
    aims: list[Aim] = field(default_factory=list)
    hops: list[Hop] = field(default_factory=list)
    listeners: Listeners | None = None
    result: ProbeResult | None = None
    # On another node, and what that host says to a ping.
    far: far.Far | None = None
    underlay: ProbeResult | None = None
    # The same of a ping as large as both hosts' interfaces take.
    large: ProbeResult | None = None
    # What that node tells of its half; None where it was not asked, or `far_problem` says why it did not answer.
    across: splice.Across | None = None
    far_problem: str = ""
    # Of the name: "" as it should be, else what is wrong with it.
    trouble: nouns.Conclusion | None = None
    reason: causes.Why | None = None


def places(facts: HostFacts) -> Places:
    """Where outside lies. Raises Unsupported."""
    try:
        return Places(facts.routes, facts.has_ipv6)
    except LookupError as error:
        raise Unsupported(str(error)) from error


def shot(inquiry: Inquiry, aim: Aim) -> Shot:
    """The packet of a question."""
    return Shot(inquiry.source.netns or HOST, aim.address, inquiry.protocol, aim.port, aim.netns)


def probe_of(inquiry: Inquiry, aim: Aim) -> Probe:
    """The question as the walk takes it."""
    source = inquiry.source.netns or HOST
    far = inquiry.places.far(aim.address.version) if inquiry.places is not None else None
    return Probe(
        source_netns=source,
        destination=aim.address,
        protocol=inquiry.protocol,  # type: ignore[arg-type]
        port=aim.port if inquiry.protocol != "icmp" else None,
        source_address=far if source == OUTSIDE else None,
        in_interface=_comes_in_by(inquiry) if source == OUTSIDE else "",
    )


def _comes_in_by(inquiry: Inquiry) -> str:
    return inquiry.places.link if isinstance(inquiry.places, ends.Uplink) else OUTSIDE


def take_addresses(ctx: Context, inquiry: Inquiry, addresses: Iterable[Address]) -> None:
    """What the name came to: where the packet may go, and whose that is."""
    versions = ends.versions_of(ctx, inquiry.source)
    known = [each for each in addresses if each.version in versions] or list(addresses)
    # In an order of their own: the responder turns them round with every answer.
    known.sort(key=lambda each: (versions.index(each.version) if each.version in versions else 9, int(each)))
    inquiry.aims = [ends.at(ctx, each, inquiry.protocol, inquiry.port, inquiry.source) for each in known]
    owner = ends.owner_of(ctx, known[0])
    inquiry.target = owner[0] if owner is not None else End("address", inquiry.name, inquiry.aims[0].netns)


def listed(addresses: Sequence[Address]) -> str:
    """In a sentence."""
    return ", ".join(map(str, addresses))

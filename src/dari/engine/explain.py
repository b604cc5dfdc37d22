"""explain and verify as operations: who is meant, and whether the question can be asked.

Must not know: JSON, how anything is found out.
"""

from __future__ import annotations

from ipaddress import ip_address

from dari.engine.base import Engine
from dari.engine.lookup import find_container
from dari.model.errors import Conflict, InvalidArgument, NotFound
from dari.model.explain import Explanation, Question, Verification, VerifyQuestion
from dari.net.packet import OUTSIDE
from dari.net.state import Address
from dari.reconcile import ends, verify
from dari.reconcile.ends import End
from dari.reconcile.explain import explain as explain_inquiry
from dari.reconcile.inquiry import Inquiry
from dari.reconcile.zones import has_names

PROTOCOLS = ("tcp", "udp", "icmp")
LONGEST_TIMEOUT = 30.0


async def explain(eng: Engine, question: Question) -> Explanation:
    """Raises InvalidArgument (port, protocol, ends), NotFound and Conflict (the container to ask from is unknown or
    does not run), Internal."""
    protocol = _protocol(question)
    _check_timeout(question.timeout)
    source = _source(eng, question.source)
    target, name = _target(eng, question.target, source)
    return await explain_inquiry(
        eng.ctx,
        Inquiry(source, target, protocol, question.port, question.probe, question.timeout, name=name),
    )


async def verify_project(eng: Engine, question: VerifyQuestion) -> Verification:
    """Raises NotFound (no container of that project runs), InvalidArgument, Internal."""
    _check_timeout(question.timeout)
    return await verify.verify(eng.ctx, question.project, question.timeout, is_probed=question.probe)


def _protocol(question: Question) -> str:
    port, protocol = question.port, question.protocol.lower()
    if protocol and protocol not in PROTOCOLS:
        raise InvalidArgument(f"invalid protocol {question.protocol!r}: give one of {', '.join(PROTOCOLS)}")
    if not 0 <= port <= 65535:
        raise InvalidArgument(f"invalid port {port}: give a number from 1 to 65535")
    if protocol in ("tcp", "udp") and port == 0:
        raise InvalidArgument(f"{protocol} needs a port: give a number from 1 to 65535")
    if protocol == "icmp" and port:
        raise InvalidArgument("icmp has no ports: leave the port out")
    return protocol or ("tcp" if port else "icmp")


def _check_timeout(seconds: float) -> None:
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise InvalidArgument(f"invalid timeout {seconds:g}: give seconds, at most {LONGEST_TIMEOUT:g}")


def _source(eng: Engine, ref: str) -> End:
    if not ref:
        raise InvalidArgument("From is missing: give a container, host or outside")
    if ref == "host":
        return ends.HOST_END
    if ref == "outside":
        return ends.OUTSIDE_END
    address = _parsed(ref)
    found = _address(eng, address) if address is not None else ends.end_of(eng.ctx, find_container(eng, ref))
    # An address stays with a container that ended while others share its network.
    if found.container is not None and not ends.is_running(found.container):
        name = found.name if found.name == ref.removeprefix("/") else f"{found.name} ({ref})"
        raise Conflict(f"container {name} is not running: start it to ask from it")
    return found


def is_outside(eng: Engine, ref: str) -> bool:
    """Whether a question from there comes from beyond this host."""
    if ref == "outside":
        return True
    try:
        address = _parsed(ref)
        return address is not None and _address(eng, address).kind == "outside"
    except NotFound:
        return False


def _parsed(ref: str) -> Address | None:
    """None where it is no address. Raises InvalidArgument where it is one of a link's, whose packets are not walked."""
    try:
        address = ip_address(ref)
    except ValueError:
        return None
    if address.version == 6 and address.is_link_local:
        raise InvalidArgument(
            f"{ref} means another machine on every link: ask for a name, or for another address"
        )
    return address


def _address(eng: Engine, address: Address) -> End:
    """Who asks from an address: one of ours, or somebody outside in particular. Raises NotFound (it is nobody's)."""
    owner = ends.owner_of(eng.ctx, address)
    if owner is not None:
        return owner[0]
    if ends.is_hosts(eng.ctx, address):
        return ends.HOST_END
    network = ends.network_around(eng.ctx, address)
    if network is not None and network.spec.driver in ("bridge", "overlay"):
        raise NotFound(f"nobody on this node has the address {address}, which is network {network.name}'s")
    return End("outside", str(address), OUTSIDE, address=address)


def _target(eng: Engine, ref: str, source: End) -> tuple[End, str]:
    """The end, and the name the source would look up for it ("": it asks by address)."""
    if not ref:
        raise InvalidArgument("To is missing: give a container, a name, an address, host or outside")
    if ref == "host":
        return ends.HOST_END, ""
    if ref == "outside":
        if source.kind == "outside":
            raise InvalidArgument("from outside to outside is not this host's business")
        return ends.OUTSIDE_END, ""
    address = _parsed(ref)
    if address is not None:
        return End("address", str(address)), ""
    try:
        container = find_container(eng, ref)
    except NotFound:
        if source.kind == "outside":
            raise
        return End("name", ref), ref
    target = ends.end_of(eng.ctx, container)
    return target, ref if _is_name_for(eng, ref, source, target) else ""


def _is_name_for(eng: Engine, ref: str, source: End, target: End) -> bool:
    """Whether the source would look that up: the container's name, or its short id where names are answered; any other
    id is this engine's word for it alone."""
    assert target.container is not None
    if target.container.name == ref.removeprefix("/"):
        return True
    common = {network.id for network, _ in ends.places_of(eng.ctx, source) if has_names(network)}
    is_neighbour = any(network.id in common for network, _ in ends.places_of(eng.ctx, target))
    return is_neighbour and ref == target.container.id[:12]

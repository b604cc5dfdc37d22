"""explain from an end on another node: that node is asked the whole question, and its answer told with its name.

`NAME@NODE` says which one; a container's name alone is looked for here first, then among those of the other nodes.
Must not know: HTTP, how a node finds its answer out. The asked side is answering.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from dari.engine import explain as here
from dari.engine.base import Engine
from dari.engine.lookup import find_container
from dari.model.cluster import Member, Node
from dari.model.errors import Conflict, InvalidArgument, NotFound, Unavailable
from dari.model.explain import Explanation, Question
from dari.model.network import Endpoint
from dari.reconcile import ends, far, far_words
from dari.reconcile.across import patience
from dari.reconcile.elsewhere_words import told_by
from dari.reconcile.shared_networks import is_shared
from dari.reconcile.talk import NoAnswerError, Talk
from dari.units import is_global_id

_PLACES = ("host", "outside")
# For the node asked may have to ask for a name, and another node for its half.
_PACKETS_WAITED_FOR = 4
_LONGEST_NAME_SECONDS = 2.0
_SHORTEST_ID = 12


@dataclass(frozen=True, slots=True)
class Place:
    """An end on another node: `ref` is what that node calls it."""

    ref: str
    node: Node


async def explain(eng: Engine, question: Question) -> Explanation:
    """As engine.explain, wherever the question starts. Raises what it does, and Unavailable (the other node does not
    answer), Conflict (it does not live)."""
    source, source_node = _split(eng, question.source)
    target, target_node = _split(eng, question.target)
    place = _place(eng, source, source_node)
    if place is None and not source_node and here.is_outside(eng, source):
        # The ports of a container are its own node's.
        place = _of_container(eng, target, target_node)
        place = Place(source, place.node) if place is not None else None
    asked = place.node.id if place is not None else eng.ctx.node_id
    question = msgspec.structs.replace(
        question,
        source=place.ref if place is not None else source,
        target=_target(eng, target, target_node, place.ref if place is not None else source, asked),
    )
    if place is None:
        try:
            return await here.explain(eng, question)
        except NotFound as error:
            if source_node or eng.ctx.node is None:
                raise
            # One that is on no network of several nodes is known on its own node alone.
            raise NotFound(f"{error.message}; of one on another node say which: {source}@NODE") from error
    return await _ask(eng, place, question)


async def _ask(eng: Engine, place: Place, question: Question) -> Explanation:
    talk = Talk(eng.ctx, place.node)
    first = patience(question.timeout)
    seconds = 4 * first + _PACKETS_WAITED_FOR * max(question.timeout, _LONGEST_NAME_SECONDS)
    try:
        # A node that hangs is known soon, however long its answer may take.
        await talk.ask(far_words.DOORS, far_words.Doors(addresses=[]), far_words.DoorsFound, first)
        told = await talk.ask(far_words.EXPLAIN, question, Explanation, seconds)
    except NoAnswerError as error:
        raise Unavailable(f"{error}; it has to tell what happens there: ask on that host itself") from error
    finally:
        await talk.close()
    return told_by(told, place.node.name, place.node.address)


def _split(eng: Engine, ref: str) -> tuple[str, str]:
    """`db@b` as its two halves, where the second one is a node. Raises NotFound."""
    name, at, node = ref.rpartition("@")
    if not at or not name:
        return ref, ""
    if not any(node == each.name for each in _members(eng)):
        raise NotFound(f"no node is called {node} (dari node ls)")
    return name, node


def _members(eng: Engine) -> list[Node | Member]:
    own = [eng.ctx.node] if eng.ctx.node is not None else []
    members = eng.ctx.tables.members.all(eng.ctx.shared)
    return [*own, *eng.ctx.tables.nodes.all(eng.ctx.shared), *members]


def _living(eng: Engine, name: str) -> Node:
    """Raises Conflict."""
    found = next((each for each in eng.ctx.tables.nodes.all(eng.ctx.shared) if each.name == name), None)
    if found is None:
        raise Conflict(
            f"nothing was heard of node {name} for its time to live: look after that host and its darid"
        )
    return found


def _place(eng: Engine, ref: str, node: str) -> Place | None:
    """None where it is this node's to find, or nobody's."""
    if node:
        is_own = eng.ctx.node is not None and eng.ctx.node.name == node
        return None if is_own else Place(ref, _living(eng, node))
    return _of_container(eng, ref, "") if ref not in _PLACES else None


def _of_container(eng: Engine, ref: str, node: str) -> Place | None:
    if not ref or ref in _PLACES:
        return None
    if node:
        return _place(eng, ref, node)
    try:
        find_container(eng, ref)
    except NotFound:
        return _look_around(eng, ref)
    return None


def _look_around(eng: Engine, ref: str) -> Place | None:
    """Among the containers other nodes tell of. Raises InvalidArgument (it may be several), Conflict (dead)."""
    found = {
        container: (name, node_id)
        for container, name, names, node_id in _told(eng)
        if ref == name or (len(ref) >= _SHORTEST_ID and container.startswith(ref))
    }
    found = found or {
        container: (name, node_id) for container, name, names, node_id in _told(eng) if ref in names
    }
    if not found:
        return None
    titles = {each.id: each.name for each in _members(eng)}
    if len(found) > 1:
        each_of = ", ".join(
            sorted(f"{name}@{titles.get(node_id, node_id)}" for name, node_id in found.values())
        )
        raise InvalidArgument(f"{ref} is several containers on other nodes: name one of {each_of}")
    [(container, (_, node_id))] = found.items()
    return Place(container, _living(eng, titles.get(node_id, node_id)))


def _told(eng: Engine) -> list[tuple[str, str, list[str], str]]:
    """Id of the container, its name, all it is called (its addresses too), and the id of its node."""
    tables, store = eng.ctx.tables, eng.ctx.shared
    networks = [each for each in tables.networks.all(store) if is_shared(each)]
    found = [
        (
            each.endpoint.container_id,
            each.name,
            [*each.endpoint.dns_names, each.endpoint.ipv4, each.endpoint.ipv6],
            each.endpoint.node,
        )
        for each in far.on(eng.ctx, networks)
    ]
    return found + [
        (each.id, each.name, each.names, each.node)
        for each in tables.published.all(store)
        if each.node != eng.ctx.node_id
    ]


def _target(eng: Engine, ref: str, node: str, source: str, asked: str) -> str:
    """What the node asked, where `source` is, is to call it. Raises NotFound (an id of ours that is not told there),
    InvalidArgument (it may be several)."""
    # Who lives goes before who had that name once.
    titles = {each.name: each.id for each in reversed(_members(eng))}
    if node and titles.get(node) == asked:
        return ref
    if not node:
        if asked != eng.ctx.node_id and len(ref) >= _SHORTEST_ID:
            # An id of this node's means nothing there.
            try:
                return find_container(eng, ref).name
            except (NotFound, InvalidArgument):
                return ref
        return ref
    if ref == "host":
        return next(each.address for each in _members(eng) if each.name == node)
    if ref == "outside":
        raise InvalidArgument("to outside it goes by the node that asks: leave @NODE out")
    address = told_address(eng, ref, titles[node], source, asked)
    if not address:
        raise NotFound(
            f"node {node} tells of no container {ref} on a network that is there for several nodes"
        )
    return address


def told_address(eng: Engine, ref: str, node_id: str, source: str, asked: str) -> str:
    """The address of a container on a node, as far as networks of several nodes tell of it; on one that `source`, an
    end on the node `asked`, is on too, where there is one. Raises InvalidArgument (it may be several)."""
    found = _endpoints_of(eng, ref, node_id)
    owners = {each.container_id: next(iter(each.dns_names), each.container_id[:12]) for each in found}
    if len(owners) > 1:
        names = ", ".join(sorted(owners.values()))
        raise InvalidArgument(f"{ref} is several containers on that node: name one of {names}")
    near = _networks_of(eng, source, asked)
    found.sort(key=lambda each: each.network_id not in near)
    return next((at for each in found for at in (each.ipv4, each.ipv6) if at), "")


def _endpoints_of(eng: Engine, ref: str, node_id: str) -> list[Endpoint]:
    """Of who is called so on a node, on networks of several nodes: by its own name, else by any name or address, else
    by the beginning of an id, which a name may look like."""
    there = [
        each
        for each in eng.ctx.tables.endpoints_of_node.get(eng.ctx.shared, node_id)
        if each.is_active and is_global_id(each.network_id)
    ]
    named = [each for each in there if each.dns_names[:1] == [ref]]
    called = named or [each for each in there if ref in (*each.dns_names, each.ipv4, each.ipv6)]
    return called or [each for each in there if ref and each.container_id.startswith(ref)]


def _networks_of(eng: Engine, ref: str, node_id: str) -> set[str]:
    """The ids of networks an end on a node is on, as far as it is known here."""
    told = {each.network_id for each in _endpoints_of(eng, ref, node_id)}
    if node_id != eng.ctx.node_id:
        return told
    try:
        end = ends.end_of(eng.ctx, find_container(eng, ref))
    except (NotFound, InvalidArgument):
        return told
    return {network.id for network, _ in ends.places_of(eng.ctx, end)}

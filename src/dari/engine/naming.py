"""Names of containers: the rule, and a name for those who gave none.

A generated name is an adjective and the name of a bridge or of a word from building one, `steady_truss`. Must not
know: stores; the caller says which names are taken.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from dari.model.errors import InvalidArgument
from dari.units import is_valid_name

_ADJECTIVE_TEXT = (
    "airy amber ample arched balanced bold brave bright brisk broad calm candid careful cheerful clear clever "
    "coastal cool copper crisp curious daring deep eager early easy elegant even fair famous fearless fine firm "
    "fluent fond frank fresh friendly gentle glad golden graceful grand green handy happy hardy hidden honest "
    "humble ideal jolly keen kind lasting lean light lively long lucid lucky mellow merry mighty mild modest neat "
    "nimble noble northern open patient placid plain polished prompt proud quick quiet rapid ready robust rooted "
    "royal rustic sandy scenic serene sharp silent silver simple slender smart smooth solid southern spry stable "
    "steady stone strong sturdy subtle sunny swift tall tidy timely tranquil trusty upright vast vivid warm wide "
    "winding wise witty wooden young"
)
_NOUN_TEXT = (
    "abutment akashi alamillo alcantara anchor aqueduct arch arkadiko baluarte banpo bascule beam berth bosphorus "
    "bow bracket brooklyn buttress cable caisson camber canopy cantilever capilano causeway chapel charles chord "
    "confederation corbel crossing culvert dam deck dyke erasmus ferry ford forth gangway gate gateshead girder "
    "glienicke golden_gate gorge gwangan hangang hangzhou harbour helix howrah humber incheon isthmus jetty joist "
    "keystone khaju kintai ladder lagoon lattice lever lintel lock louping luding luis mackinac mathematical "
    "megyeri menai millau mole mostar nanpu nusle oresund pier pile pillar plank ponte pontoon portal post "
    "pulteney pylon quay queensferry rafter rail rainbow ramp rialto rivet rope sava seohae severn sill skyway "
    "span spandrel spring stari stonecutters strait strut sunniberg sydney tatara tower traverse trestle truss "
    "tunnel tyne vasco vault verrazzano viaduct vidin wharf xihoumen zhaozhou"
)
_ADJECTIVES = _ADJECTIVE_TEXT.split()
_NOUNS = _NOUN_TEXT.split()


def check_name(name: str) -> str:
    """`name` without a leading slash. Raises InvalidArgument where Docker's rule forbids it."""
    plain = name.removeprefix("/")
    if not is_valid_name(plain):
        raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return plain


def generate_name(is_taken: Callable[[str], bool], choose: random.Random | None = None) -> str:
    """A free name; a digit is added once plain ones keep being taken."""
    source = choose or random.Random()
    tries = 0
    while True:
        name = f"{source.choice(_ADJECTIVES)}_{source.choice(_NOUNS)}"
        if tries > 5:
            name += str(source.randrange(10 ** min(tries - 5, 9)))
        if not is_taken(name):
            return name
        tries += 1

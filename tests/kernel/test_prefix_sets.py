"""Is a prefix in a set of intervals? Asked one by one, the answer is that of a look at the whole set."""

from __future__ import annotations

import random
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

import pytest
from tests.kernel.world import run

from dari.kernel import elements, nfnetlink
from dari.kernel.netlink import NETLINK_NETFILTER, Netlink

pytestmark = pytest.mark.kernel_ns

SET = "flush ruleset\ntable inet dari {\nset s {\ntype %s;\nflags interval;\n%s}\n}\n"


def some_prefixes(seed: int, base: str, longest: int) -> list[IPv4Network | IPv6Network]:
    """Up to twelve prefixes that do not overlap, many of them side by side, of several lengths."""
    rnd, net = random.Random(seed), ip_network(base)
    found: list[IPv4Network | IPv6Network] = []
    for _ in range(rnd.randint(0, 12)):
        at = int(net.network_address) + (rnd.randrange(32) << (net.max_prefixlen - longest))
        made = ip_network((at, rnd.randint(longest - 3, longest)), strict=False)
        if not any(made.overlaps(each) for each in found):  # type: ignore[arg-type]
            found.append(made)
    return found


@pytest.mark.parametrize(
    ("kind", "base", "longest"), [("ipv4_addr", "10.0.0.0/8", 14), ("ipv6_addr", "fd00::/8", 16)]
)
def test_asked_one_by_one(kind: str, base: str, longest: int, tmp_path: Path) -> None:
    for seed in range(25):
        chosen = some_prefixes(seed, base, longest)
        inside = f"elements = {{ {', '.join(map(str, chosen))} }}\n" if chosen else ""
        rules = tmp_path / "rules.nft"
        rules.write_text(SET % (kind, inside))
        run("nft", "-f", str(rules))
        with Netlink(NETLINK_NETFILTER) as sock:
            shape = nfnetlink.sets(sock, nfnetlink.INET, "dari")["s"]
            asked = {*chosen, *(each.supernet() for each in chosen)}
            asked |= {half for each in chosen for half in each.subnets()}
            for each in asked:
                answers, _ = sock.request([elements.get_prefix(nfnetlink.INET, "dari", shape, str(each))])
                assert elements.has_prefix(str(each), answers[0]) == (each in chosen), (seed, each, chosen)

"""IPv6 on and off, interface by interface.

Must not know: drivers. Source: RFC 8200, section 5 (the lowest MTU).
"""

from __future__ import annotations

from dari.net.facts import HostFacts

MTU_MINIMUM_IPV6 = 1280


def ipv6_switch(link: str, facts: HostFacts, mtu: int, *, is_on: bool) -> dict[str, str]:
    """The sysctl that gives an interface IPv6 or keeps it from it, by its path; `mtu` in bytes.

    None where there is nothing to switch: a host without IPv6, or an MTU too small for it, for which the kernel has no
    IPv6 settings at all.
    """
    if not facts.has_ipv6 or mtu < MTU_MINIMUM_IPV6:
        return {}
    return {f"net/ipv6/conf/{link}/disable_ipv6": "0" if is_on else "1"}

"""explain: what happens to a packet and to its answer, by a KernelState.

The nouns of the question and of the answer are packet.py's. Must not know: stores, containers, sockets, clocks.
"""

from __future__ import annotations

from dari.net.packet import OUTSIDE as OUTSIDE
from dari.net.packet import Hop as Hop
from dari.net.packet import Listeners as Listeners
from dari.net.packet import Probe as Probe
from dari.net.packet import Trace as Trace
from dari.net.packet import Verdict as Verdict

"""The relay: carries connections the kernel cannot translate, to [::1] or from IPv6 to an IPv4 address, and keeps
published ports open. It outlives darid, needs the standard library only and knows nothing of dari: sockets come in
over its door.
"""

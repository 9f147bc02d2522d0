"""WireGuard: keys, addresses, configuration text, the `wg` programs, and keeping an interface in step.

A device's peer goes the way `PeerSet` -> `peers.json` on the shared volume -> `sync` beside the server ->
the interface -> `applied.json`, which is what the interface was *seen* to hold. Not responsible for who
may have a peer or which address is whose: the registry decides that.
"""

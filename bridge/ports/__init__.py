"""What the use cases need from the world: Protocols only, no implementation.

One module a neighbour: :mod:`~bridge.ports.registry` (the truth), :mod:`~bridge.ports.authority`,
:mod:`~bridge.ports.platform`, :mod:`~bridge.ports.updates`, :mod:`~bridge.ports.tunnels` (the four outside
systems), :mod:`~bridge.ports.admission` and :mod:`~bridge.ports.runtime` (clock and randomness).

Every implementation raises only errors of :mod:`bridge.errors`.
"""

"""One transaction on the registry: all operations of the port, put together."""

from __future__ import annotations

from bridge.store.activation import Activation
from bridge.store.adoption import Adoption
from bridge.store.certificates import Certificates
from bridge.store.lifecycle import Lifecycle
from bridge.store.links import Links
from bridge.store.reading import Reading
from bridge.store.trail import Trail


class SqlTransaction(Certificates, Activation, Lifecycle, Links, Reading, Adoption, Trail):
    """Implements :class:`bridge.ports.registry.Transaction` on one connection.

    Built by the engine modules for one run of one unit, and of no use after it.
    """

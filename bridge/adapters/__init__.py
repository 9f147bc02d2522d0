"""The outside systems behind the bridge's ports: the only place that imports their clients.

Each adapter turns the system's values and errors into the bridge's; it decides nothing.
:mod:`~bridge.adapters.embedded` alone builds the stand-ins.
"""

"""Reconciliation: bringing the outside systems into agreement with the registry.

One worker a system claims due links, asks the system's *door* to look and, where there is a difference, to write; the
result goes back with the claim. Hints and changes make links due, nothing breaks a claim, and a system that is down
delays nobody but itself.
"""

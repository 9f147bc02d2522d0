"""Whom the device believes: pinned roots, certificates and their paths, TLS that ends there."""

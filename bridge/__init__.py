"""The server: API, registry, admission, reconciliation and the operators' command."""

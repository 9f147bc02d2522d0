"""The way to the bridge: one request at a time over TLS, under one deadline, bounded, through proxies."""

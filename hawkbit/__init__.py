"""HawkBit, the update server: Management API client and embedded stand-in."""

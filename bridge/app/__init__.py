"""The server: the composition root that builds every part, starts it, and ends it in order."""

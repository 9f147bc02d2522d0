"""The audit trail that cannot be edited unseen: sealing it, checking it, taking it away to be checked elsewhere.

What is found and what is not is stated in SECURITY.md. The form is :mod:`bridge.model.trail`.
"""

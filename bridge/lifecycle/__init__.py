"""The life of a device beside its enrollment, as operators order it: register, re-enroll, retire, reinstate, abandon.

An order is one transaction; what follows from it in outside systems is the reconciler's work.
"""

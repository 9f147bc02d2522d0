"""Enrollment: from a CSR at the door to a certificate that is safe in the registry.

:mod:`~bridge.enrollment.csr` reads what the device sent, :mod:`~bridge.enrollment.decision` decides who gets what,
:mod:`~bridge.enrollment.service` carries it out: record, ask the CA, record, answer.
"""

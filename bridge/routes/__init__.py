"""The HTTP door: FastAPI application, request parsing, answers, problem documents, API document.

Every handler is parse, one call, render. Responsible for the wire (names, codes, order of the protocol between device
and bridge) and for nothing else: no decision, no SQL, no outside system.
"""

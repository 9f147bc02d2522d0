"""Checking the trail, line by line, with bounded memory: the first thing that is wrong is named.

The same check serves the database and an export. It believes nothing but the keys that it is given: lines are taken
as somebody may have left them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.model.identity import Fingerprint
from bridge.model.signing import NotSigned, Purpose, VerifyKey, key_named_in
from bridge.model.trail import Head, Malformed, digest, genesis, link
from bridge.ports.trail import Line


class Fault(Exception):
    """The first thing that is wrong with the trail."""

    def __init__(self, sequence: int | None, text: str) -> None:
        super().__init__(text)
        self.sequence = sequence
        """Number of the first entry that cannot be relied on; ``None`` where no entry is to blame."""


@dataclass(frozen=True, slots=True)
class LaterHead:
    """A signed head that was kept elsewhere: in a log, a receipt, an earlier export."""

    head: Head
    jws: str


def head_of(jws: str, keys: Mapping[Fingerprint, VerifyKey]) -> Head:
    """Return what a signed head says.

    :raises NotSigned: it is not signed by one of the keys.
    :raises Malformed: what is signed is no head.
    """
    key = keys.get(key_named_in(jws))
    if key is None:
        raise NotSigned(f"it is signed with the key {key_named_in(jws)}, which is none of those to check with")
    return Head.parse(key.check(jws, Purpose.AUDIT_HEAD))


class Verifier:
    """Takes the trail in order: each entry, each head right behind the entry that it ends at, then the end."""

    def __init__(self, installation: str, keys: Iterable[VerifyKey], later: Iterable[LaterHead] = ()) -> None:
        self._installation = installation
        self._keys = {key.fingerprint: key for key in keys}
        self._later = sorted((one.head for one in later), key=lambda head: head.sequence)
        self.sequence = 0
        """Number of the last good entry."""
        self.chain = genesis(installation)
        self.heads = 0
        self.last_head: str | None = None
        self._signed = 0
        """Number of the entry that the last good head ends at."""

    def start(self) -> Line:
        """Return the record of the end of a trail without entries."""
        return {"sequence": 0, "chain": genesis(self._installation)}

    def entry(self, line: Line) -> None:
        """Take the next entry.

        :raises Fault: it is not the next one, or not what was sealed.
        """
        number = line.get("sequence")
        expected = self.sequence + 1
        if type(number) is not int or number < expected:
            raise Fault(expected, f"an entry is numbered {number!r} where {expected} has to be{_named(line)}")
        if number > expected:
            gone = f"entry {expected} is missing" if number == expected + 1 else f"entries from {expected} are missing"
            raise Fault(expected, f"{gone}: {number} is next{_named(line)}")
        try:
            own = digest(line)
        except Malformed as e:
            raise Fault(number, f"entry {number} is no entry of this bridge: {e}") from e
        chain = link(self.chain, own)
        if line.get("chain") != chain:
            raise Fault(
                number,
                f"entry {number}{_named(line)} is not what was sealed there: it was changed, exchanged, put in, or its"
                " chain value was changed",
            )
        self.sequence, self.chain = number, chain
        while self._later and self._later[0].sequence == number:
            self._compare(self._later.pop(0))

    def _compare(self, kept: Head) -> None:
        if kept.chain != self.chain:
            raise Fault(
                None, f"the trail was rewritten: entry {kept.sequence} and those before are not what was signed"
            )

    def head(self, line: Line) -> None:
        """Take the head that ends at the last entry.

        :raises Fault: it is not signed, or does not belong here.
        """
        number = line.get("sequence")
        first = self._signed + 1
        try:
            head = head_of(str(line.get("jws")), self._keys)
        except (NotSigned, Malformed) as e:
            raise Fault(first, f"the head at entry {number!r} is not to be relied on: {e}") from e
        if head.installation != self._installation:
            raise Fault(first, f"the head at entry {number!r} is of the installation {head.installation}")
        if type(number) is not int or head.sequence != number:
            raise Fault(first, f"the head of entry {head.sequence} stands at entry {number!r}")
        if head.previous != self._signed:
            raise Fault(first, f"the head at entry {head.previous} is missing: the one at {number} follows it")
        if number > self.sequence:
            raise Fault(self.sequence + 1, self._cut(number))
        if head.sequence != self.sequence or head.chain != self.chain:
            raise Fault(first, f"entries {first} to {number} are not those that were signed")
        self._signed, self.last_head = number, str(line.get("jws"))
        self.heads += 1

    def end(self, mark: Line | None) -> None:
        """Take the sequencer's own record of the end.

        :raises Fault: the trail ends elsewhere, is not signed up to its end, or is shorter than a head at hand says.
        """
        if self._signed != self.sequence:
            raise Fault(self._signed + 1, f"no head signs the entries from {self._signed + 1} to {self.sequence}")
        ends = (0, genesis(self._installation)) if mark is None else (mark.get("sequence"), mark.get("chain"))
        if ends != (self.sequence, self.chain):
            raise Fault(
                self.sequence + 1,
                f"the trail ends at entry {self.sequence}, its own record of the end says {ends[0]!r}:"
                " entries were cut off, or the record was changed",
            )
        for kept in self._later:
            if kept.installation != self._installation:
                raise Fault(None, f"the head at hand is of the installation {kept.installation}")
            raise Fault(self.sequence + 1, self._cut(kept.sequence))

    def _cut(self, signed: int) -> str:
        return f"entries {self.sequence + 1} to {signed} are missing: the trail was cut, a signed head ends at {signed}"


def _named(line: Mapping[str, Any]) -> str:
    """Return what a line says it is, for people to find it."""
    device = f" of {line.get('device')}" if line.get("device") is not None else ""
    return f" ({line.get('action')}{device}, id {line.get('id')})"

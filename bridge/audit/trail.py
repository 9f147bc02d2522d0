"""Reading the whole trail from the registry or from an export, in bounded memory: to check it, or to write it out.

An export is JSON Lines, each line RFC 8785: ``{"trail": …}`` (format, installation, public keys), then each
``{"entry": …}`` with its number and chain value and, behind the entry that it ends at, each ``{"head": …}``, then
``{"end": …}``, the sequencer's record of the end. Entries that are not sealed yet are not in it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.audit.verification import Fault, LaterHead, Verifier, head_of
from bridge.errors import BadRequest, BridgeError
from bridge.model.identity import Fingerprint
from bridge.model.signing import NotSigned, VerifyKey
from bridge.model.trail import Malformed, jcs
from bridge.ports.registry import Registry
from bridge.ports.trail import Line, TrailPage

FORMAT: Final = 1
PAGE: Final = 1000
"""Lines read at a time."""


class Unreadable(BridgeError):
    """The trail cannot be written out as it is."""

    advice = "Run: iot-bridge audit verify."


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found."""

    installation: str
    keys: tuple[Fingerprint, ...]
    """With which signatures were checked."""
    entries: int
    """How many are good: from the first on, without a gap."""
    heads: int
    last_head: str | None
    """The last good one; keep it, to find out later whether the trail was cut or rewritten."""
    unsealed: int | None
    """Not chained and not signed yet; ``None`` in an export."""
    fault: Fault | None

    @property
    def good(self) -> bool:
        """True if nothing is wrong."""
        return self.fault is None


@dataclass(frozen=True, slots=True)
class Against:
    """What to check with, beside the trail itself."""

    keys: tuple[VerifyKey, ...] = ()
    """Trusted public keys; none: those that the trail itself names."""
    pins: tuple[Fingerprint, ...] = ()
    """Fingerprints that the trail's own keys must be among, to count."""
    heads: tuple[str, ...] = ()
    """Signed heads that were kept elsewhere."""
    own: VerifyKey | None = None
    """The key in the installation's file, where it can be read: the newest that the registry names must be it."""

    def trusted(self, named: Sequence[VerifyKey]) -> tuple[VerifyKey, ...]:
        """Return the keys that count, of a trail that names these."""
        if not self.keys and not self.pins:
            return tuple(named)
        return (*self.keys, *(key for key in named if key.fingerprint in self.pins))

    def later(self, keys: Iterable[VerifyKey]) -> tuple[LaterHead, ...]:
        """Return the kept heads.

        :raises BadRequest: one is not signed by one of the keys.
        """
        known = {key.fingerprint: key for key in keys}
        try:
            return tuple(LaterHead(head_of(jws, known), jws) for jws in self.heads)
        except (NotSigned, Malformed) as e:
            raise BadRequest(f"--head: {e}") from e


async def verify_registry(registry: Registry, against: Against) -> Verdict:
    """Check the registry's trail, up to its end at the moment when the end is reached.

    :raises BadRequest: a kept head is no signed head.
    """
    installation = await registry.read(lambda tx: tx.installation())
    name = "" if installation is None else installation.id
    try:
        named = await registry.read(lambda tx: tx.signing_keys())
    except ValueError as e:
        return Verdict(name, (), 0, 0, None, None, Fault(None, f"a signing key in the registry was changed: {e}"))
    keys = against.trusted(named)
    verifier = Verifier(name, keys, against.later(keys))
    fault: Fault | None = None
    try:
        _same_key(named, against.own)
        async for page in pages(registry):
            for kind, line in in_order(page):
                verifier.entry(line) if kind == "entry" else verifier.head(line)
            if page.empty:
                verifier.end(page.mark)
    except Fault as e:
        fault = e
    unsealed = await registry.read(lambda tx: tx.unsealed_count())
    return _verdict(name, keys, verifier, unsealed, fault)


def _same_key(named: Sequence[VerifyKey], own: VerifyKey | None) -> None:
    if own is not None and named and named[-1] != own:
        text = f"the registry names the signing key {named[-1].fingerprint}, the key file holds {own.fingerprint}"
        raise Fault(None, text)


def verify_lines(lines: Iterable[str], against: Against) -> Verdict:
    """Check an export, without any registry.

    :raises BadRequest: it is no export, or a kept head is no signed head.
    """
    rest = iter(lines)
    name, named = _opening(next(rest, ""))
    keys = against.trusted(named)
    verifier = Verifier(name, keys, against.later(keys))
    fault: Fault | None = None
    try:
        _check(rest, verifier)
    except Fault as e:
        fault = e
    return _verdict(name, keys, verifier, None, fault)


def _verdict(
    name: str, keys: Iterable[VerifyKey], verifier: Verifier, unsealed: int | None, fault: Fault | None
) -> Verdict:
    prints = tuple(key.fingerprint for key in keys)
    return Verdict(name, prints, verifier.sequence, verifier.heads, verifier.last_head, unsealed, fault)


def _check(lines: Iterator[str], verifier: Verifier) -> None:
    ended = False
    for text in lines:
        kind, line = _read(text, verifier)
        if ended:
            raise Fault(None, "something was put behind the end of the export")
        if kind == "entry":
            verifier.entry(line)
        elif kind == "head":
            verifier.head(line)
        elif kind == "end":
            verifier.end(line)
            ended = True
        else:
            raise Fault(verifier.sequence + 1, f"behind entry {verifier.sequence} stands a line of no known kind")
    if not ended:
        raise Fault(verifier.sequence + 1, f"the export ends early, behind entry {verifier.sequence}")


def _read(text: str, verifier: Verifier) -> tuple[str, Line]:
    """Take a line in the one spelling that an export has: nothing in it may hide from the digest."""
    try:
        content = json.loads(text)
        ((kind, line),) = content.items()
        same = jcs(content) + b"\n" == text.encode() and isinstance(line, dict)
    except (ValueError, AttributeError, UnicodeEncodeError, RecursionError):
        same, kind, line = False, "", {}
    if not same or set(line) != _MEMBERS.get(kind):
        raise Fault(
            verifier.sequence + 1, f"behind entry {verifier.sequence} stands a line that is not as it was written"
        )
    return kind, line


_MEMBERS: Final[dict[str, set[str]]] = {
    "entry": {"id", "at", "actor", "action", "device", "request_id", "detail", "sequence", "chain"},
    "head": {"sequence", "jws"},
    "end": {"sequence", "chain"},
}


def _opening(text: str) -> tuple[str, tuple[VerifyKey, ...]]:
    try:
        opening = json.loads(text)["trail"]
        keys = tuple(VerifyKey.from_pem(pem) for pem in opening["keys"])
        same = _line("trail", _opening_of(opening["installation"], keys)) == text
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise BadRequest("the file is no export of an audit trail, or its first line was changed") from e
    if not same:
        raise BadRequest("the first line of the export was changed, or it is of another format")
    return opening["installation"], keys


def _opening_of(installation: str, keys: Sequence[VerifyKey]) -> Line:
    return {"format": FORMAT, "installation": installation, "keys": [key.pem for key in keys]}


async def export(registry: Registry, write: Callable[[str], object]) -> int:
    """Write the sealed trail, line by line, as it is and unchecked; return how many entries it has.

    :raises Unreadable: an entry or a key was changed to something that cannot be written.
    """
    installation = await registry.read(lambda tx: tx.installation())
    try:
        keys = await registry.read(lambda tx: tx.signing_keys())
        name = "" if installation is None else installation.id
        write(_line("trail", _opening_of(name, keys)))
        count = 0
        async for page in pages(registry):
            count += len(page.entries)
            for kind, line in in_order(page):
                write(_line(kind, line))
            if page.empty:
                write(_line("end", page.mark or Verifier(name, ()).start()))
    except ValueError as e:
        raise Unreadable(f"the trail holds something that was not written by a bridge: {e}") from e
    return count


def _line(kind: str, content: Any) -> str:
    return jcs({kind: content}).decode() + "\n"


async def pages(registry: Registry, size: int = PAGE) -> AsyncIterator[TrailPage]:
    """Yield the trail in order; the last page is empty, and its mark is of the moment when nothing was behind."""
    after: Any = None
    while True:
        here = after
        page = await registry.read(lambda tx, here=here: tx.trail_page(here, size))  # type: ignore[misc]
        yield page
        if page.empty:
            return
        after = page.after


def in_order(page: TrailPage) -> Iterator[tuple[str, Line]]:
    """Yield kind and line, each head behind the entry that it ends at."""
    heads = list(page.heads)
    for entry in page.entries:
        number = entry["sequence"]
        while heads and _before(heads[0]["sequence"], number):
            yield "head", heads.pop(0)
        yield "entry", entry
    for head in heads:
        yield "head", head


def _before(head: Any, entry: Any) -> bool:
    """Tell whether a head's place is before an entry: right behind an earlier one. Numbers may be anything."""
    return type(head) is int and (type(entry) is not int or head < entry)

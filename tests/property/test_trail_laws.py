"""Laws of the trail: whatever was written and however it was sealed, it is good; one change anywhere, and it is not."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from bridge.adapters.signing import FileSigner
from bridge.audit.verification import Fault, Verifier
from bridge.model.signing import Purpose
from bridge.model.trail import FIELDS, Head, canonical, digest, genesis, link

SIGNER = FileSigner(Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
INSTALLATION = "i"
TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
NUMBER = st.integers(-(2**53) + 1, 2**53 - 1)
ENTRY = st.fixed_dictionaries(
    {
        "id": NUMBER,
        "at": NUMBER,
        "actor": TEXT,
        "action": TEXT,
        "device": st.none() | TEXT,
        "request_id": st.none() | TEXT,
        "detail": TEXT,
    }
)
ENTRIES = st.lists(ENTRY, min_size=1, max_size=12)
Lines = list[tuple[str, dict[str, Any]]]


def sealed(entries: list[dict[str, Any]], ends: set[int]) -> Lines:
    """Return the trail as it is read back: heads behind the entries whose number is in ``ends``, and the last."""
    lines: Lines = []
    chain, previous = genesis(INSTALLATION), 0
    for number, entry in enumerate(entries, 1):
        chain = link(chain, digest(entry))
        lines.append(("entry", entry | {"sequence": number, "chain": chain}))
        if number in ends or number == len(entries):
            payload = Head(INSTALLATION, number, chain, previous, 5).payload()
            jws = SIGNER.sign(payload, Purpose.AUDIT_HEAD)
            lines.append(("head", {"sequence": number, "jws": jws}))
            previous = number
    return [*lines, ("end", {"sequence": len(entries), "chain": chain})]


def fault(lines: Lines) -> Fault | None:
    verifier = Verifier(INSTALLATION, (SIGNER.public_key,))
    ended = False
    try:
        for kind, line in lines:
            if kind == "end":
                verifier.end(line)
                ended = True
            elif kind == "entry":
                verifier.entry(line)
            else:
                verifier.head(line)
    except Fault as e:
        return e
    return None if ended else Fault(None, "no end")


@given(ENTRIES, st.sets(st.integers(1, 12)))
def test_what_was_sealed_is_good_however_it_was_batched(entries: list[dict[str, Any]], ends: set[int]) -> None:
    assert fault(sealed(entries, ends)) is None


@given(ENTRIES, st.sets(st.integers(1, 12)), st.data())
def test_one_value_changed_anywhere_is_found_and_named(
    entries: list[dict[str, Any]], ends: set[int], data: st.DataObject
) -> None:
    lines = sealed(entries, ends)
    place = data.draw(st.integers(0, len(lines) - 1))
    kind, line = lines[place]
    name = data.draw(st.sampled_from(sorted(line)))
    value = data.draw(st.one_of(st.none(), NUMBER, TEXT, st.booleans(), st.floats(), st.binary(max_size=3)))
    if value == line[name] and type(value) is type(line[name]):
        return
    lines[place] = (kind, line | {name: value})
    found = fault(lines)
    assert found is not None
    if kind == "entry":
        assert found.sequence == line["sequence"]


@given(ENTRIES, st.sets(st.integers(1, 12)), st.data())
def test_one_line_deleted_doubled_or_two_exchanged_are_found(
    entries: list[dict[str, Any]], ends: set[int], data: st.DataObject
) -> None:
    lines = sealed(entries, ends)
    one = data.draw(st.integers(0, len(lines) - 1))
    other = data.draw(st.integers(0, len(lines) - 1))
    assert fault(lines[:one] + lines[one + 1 :]) is not None
    if one != len(lines) - 1:  # what stands behind the end is not handed to a verifier
        assert fault([*lines[: one + 1], lines[one], *lines[one + 1 :]]) is not None
    if one != other:
        lines[one], lines[other] = lines[other], lines[one]
        assert fault(lines) is not None


@given(ENTRIES, ENTRY, st.sets(st.integers(1, 12)), st.data())
def test_one_entry_put_in_is_found_also_with_everything_renumbered(
    entries: list[dict[str, Any]], new: dict[str, Any], ends: set[int], data: st.DataObject
) -> None:
    lines = sealed(entries, ends)
    place = data.draw(st.integers(0, len(entries) - 1))
    if new == entries[place]:
        return
    forged = sealed([*entries[:place], new, *entries[place:]], set())
    shifted = iter([line for kind, line in forged if kind == "entry"])
    # Every chain value made anew, as everybody can; the heads are those that were signed.
    mixed: Lines = []
    for kind, line in lines:
        mixed.append((kind, next(shifted) if kind == "entry" else line))
    assert fault(mixed) is not None


@given(ENTRIES, ENTRIES, st.sets(st.integers(1, 12)))
def test_only_entries_that_were_signed_pass(
    entries: list[dict[str, Any]], others: list[dict[str, Any]], ends: set[int]
) -> None:
    """Whoever has no key may number and chain what he likes: with the former heads it is only what it was."""
    if [canonical(one) for one in others] == [canonical(one) for one in entries]:
        return
    heads = {line["sequence"]: (kind, line) for kind, line in sealed(entries, ends) if kind == "head"}
    mixed: Lines = []
    for kind, line in sealed(others, set()):
        if kind != "head":
            mixed.append((kind, line))
        if kind == "entry" and line["sequence"] in heads:
            mixed.append(heads[line["sequence"]])
    signed = {number for number in heads if number <= len(others)}
    found = fault(mixed)
    kept = len(others) in heads and others == entries[: len(others)]
    # A cut back to a head is the one thing that passes: SECURITY.md says so.
    assert (found is None) == bool(kept and signed)


@given(ENTRY, ENTRY)
def test_two_entries_have_one_form_only_if_they_are_one(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert (canonical(one) == canonical(two)) == (one == two)
    assert set(FIELDS) == set(one)

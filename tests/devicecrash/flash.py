"""A disk that knows what is on the medium and what is not yet: the worst that POSIX allows, not what ext4 does.

A file's content is on the medium once the file was synced, a name once its folder was. Before, after a loss of power, a
file holds all, half or none of its content, or zeros; a name is there, or as it was, each for itself and in no order.
Two things are taken for granted, as file systems with a journal, a log or copy-on-write give them: a rename is one
change, also from folder to folder, as long as neither of the two is synced; and what is synced stays.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.devicecrash.orders import Loss

ALL_SUBSETS = 3
"""Up to so many pending changes every subset of them is tried; of more, those with and without each single one."""


@dataclass(eq=False, slots=True)
class Node:
    """A file or a folder, whatever its names."""

    number: int
    content: bytes | None
    """``None``: a folder."""
    mode: int
    safe: bool = False
    """Its content is on the medium."""
    safe_mode: int = 0

    def left(self, content: str) -> bytes:
        """Return what is there after a loss of power."""
        assert self.content is not None
        if self.safe:
            return self.content
        size = len(self.content)
        return {"whole": self.content, "half": self.content[: size // 2], "zero": bytes(size), "empty": b""}[content]


@dataclass(slots=True)
class Change:
    """A change of names that is not (all) on the medium: a name that goes, a name that comes, or both."""

    node: Node
    goes: Path | None = None
    comes: Path | None = None

    def apply(self, names: dict[Path, Node]) -> None:
        if self.goes is not None and names.get(self.goes) is self.node:
            del names[self.goes]
        if self.comes is not None:
            names[self.comes] = self.node

    def settle(self, folder: Path, names: dict[Path, Node]) -> bool:
        """Bring the part of this folder to the medium; tell whether nothing is left."""
        part = Change(self.node)
        if self.goes is not None and self.goes.parent == folder:
            part.goes, self.goes = self.goes, None
        if self.comes is not None and self.comes.parent == folder:
            part.comes, self.comes = self.comes, None
        part.apply(names)
        return self.goes is None and self.comes is None


@dataclass(slots=True)
class Flash:
    """What is on the medium, and the changes on their way to it."""

    root: Path
    durable: dict[Path, Node]
    names: dict[Path, Node]
    """As every process sees them."""
    changes: list[Change] = field(default_factory=list)
    numbers: int = 0

    @classmethod
    def scan(cls, root: Path) -> Flash:
        """Return the state of a folder in which everything has long been on the medium."""
        names: dict[Path, Node] = {}
        for number, path in enumerate(sorted([root, *root.rglob("*")])):
            mode = path.stat().st_mode & 0o7777
            names[path] = Node(number, None if path.is_dir() else path.read_bytes(), mode, True, mode)
        return cls(root, dict(names), names, numbers=len(names))

    @classmethod
    def open(cls, root: Path, cache: Path) -> Flash:
        """Return the state that the process before left, if nothing else has touched the folder since."""
        found = cls.scan(root)
        if not cache.exists():
            return found
        kept: Flash = pickle.loads(cache.read_bytes())
        same = _look_of(kept.names) == _look_of(found.names)
        return kept if same else found

    def save(self, cache: Path) -> None:
        """Keep what is in the page cache for the next process."""
        cache.write_bytes(pickle.dumps(self))

    # -- what happens ------------------------------------------------------------------------------------
    def made(self, path: Path) -> None:
        for folder in reversed([path, *path.parents]):
            if folder not in self.names and folder.is_relative_to(self.root):
                self._come(folder, None, 0o700)

    def created(self, path: Path, data: bytes, mode: int) -> None:
        self._come(path, data, mode)

    def _come(self, path: Path, content: bytes | None, mode: int) -> None:
        self.numbers += 1
        node = Node(self.numbers, content, mode, content is None, mode)
        self.names[path] = node
        self.changes.append(Change(node, comes=path))

    def restricted(self, path: Path, mode: int) -> None:
        self.names[path].mode = mode

    def synced(self, path: Path) -> None:
        node = self.names[path]
        node.safe, node.safe_mode = True, node.mode

    def renamed(self, source: Path, target: Path) -> None:
        node = self.names.pop(source)
        self.names[target] = node
        self.changes.append(Change(node, source, target))

    def removed(self, path: Path) -> None:
        node = self.names.pop(path, None)
        if node is not None:
            self.changes.append(Change(node, goes=path))

    def folder_synced(self, path: Path) -> None:
        self.changes = [change for change in self.changes if not change.settle(path, self.durable)]

    # -- what is left ------------------------------------------------------------------------------------
    def after(self, loss: Loss) -> dict[Path, Node]:
        """Return the names after a loss of power."""
        names = dict(self.durable)
        for number in loss.keep:
            self.changes[number].apply(names)
        kept: dict[Path, Node] = {}
        for path in sorted(names):
            if path == self.root or path.parent in kept:  # a folder that is gone takes its files with it
                kept[path] = names[path]
        return kept

    def losses(self, seen: set[Any], since: object) -> Iterator[Loss]:
        """Yield losses that leave something behind which is not yet in ``seen``.

        :param since: what has happened outside of the disk: the same files after another request are another state.
        """
        for keep in _subsets(len(self.changes)):
            whole = Loss(keep, "whole")
            left = self.after(whole)
            torn = any(not node.safe for node in left.values())
            for content in ("whole", "half", "zero", "empty") if torn else ("whole",):
                state = (since, content if torn else "", _identity(left))
                if state not in seen:
                    seen.add(state)
                    yield Loss(keep, content)

    def seen(self, since: object) -> Any:
        """Return the state in which a process that is killed leaves the disk: everything as it was seen."""
        return (since, "whole" if any(not node.safe for node in self.names.values()) else "", _identity(self.names))

    def visible(self, since: object) -> Any:
        """Return what the next process would see, if this one were killed now."""
        return since, frozenset((path, node.number, node.mode) for path, node in self.names.items())

    def strike(self, loss: Loss) -> None:
        """Bring the real folder into the state after the loss."""
        left = self.after(loss)
        for path in sorted(self.root.rglob("*"), reverse=True):
            if path not in left:
                path.rmdir() if path.is_dir() else path.unlink()
        for path, node in sorted(left.items()):
            if node.content is None:
                path.mkdir(mode=0o700, exist_ok=True)
                continue
            path.unlink(missing_ok=True)
            path.write_bytes(node.left(loss.content))
            path.chmod(node.safe_mode if node.safe else node.mode)


class FlashDisk:
    """A disk of the agent that tells the flash what was done."""

    def __init__(self, disk: Any, flash: Flash) -> None:
        self._disk, self._flash = disk, flash

    def make_folder(self, path: Path) -> None:
        self._disk.make_folder(path)
        self._flash.made(path)

    def remove_folder(self, path: Path) -> None:
        self._disk.remove_folder(path)
        self._flash.removed(path)

    def create(self, path: Path, data: bytes, mode: int) -> None:
        self._disk.create(path, data, mode)
        self._flash.created(path, data, mode)

    def restrict(self, path: Path, mode: int) -> None:
        self._disk.restrict(path, mode)
        self._flash.restricted(path, mode)

    def sync(self, path: Path) -> None:
        self._disk.sync(path)
        self._flash.synced(path)

    def rename(self, source: Path, target: Path) -> None:
        self._disk.rename(source, target)
        self._flash.renamed(source, target)

    def sync_folder(self, path: Path) -> None:
        self._disk.sync_folder(path)
        self._flash.folder_synced(path)

    def remove(self, path: Path) -> None:
        self._disk.remove(path)
        self._flash.removed(path)


def _subsets(count: int) -> Iterable[tuple[int, ...]]:
    every = tuple(range(count))
    if count <= ALL_SUBSETS:
        return [keep for size in range(count + 1) for keep in itertools.combinations(every, size)]
    prefixes: list[Sequence[int]] = [every[:n] for n in range(count + 1)]
    suffixes = [every[n:] for n in range(count + 1)]
    alone = [(n,) for n in every]
    without = [tuple(m for m in every if m != n) for n in every]
    return list(dict.fromkeys(tuple(keep) for keep in (*prefixes, *suffixes, *alone, *without)))


def _identity(names: dict[Path, Node]) -> Any:
    return frozenset((path, node.number, node.safe, node.mode, node.safe_mode) for path, node in names.items())


def _look_of(names: dict[Path, Node]) -> dict[Path, bytes | None]:
    return {path: node.content for path, node in names.items()}

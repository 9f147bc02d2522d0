"""Files that survive: every effect can fail or be the last one, and nothing is ever half."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enroll.disk import files
from enroll.disk.files import PUBLIC, SECRET, PosixDisk
from enroll.errors import BusyFolderError, StorageError

NOW = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
EFFECTS = ("make_folder", "remove_folder", "create", "restrict", "sync", "rename", "sync_folder", "remove")


class CutError(BaseException):
    """The power fails: nothing after it happens, not even tidying up."""


class Recorder(PosixDisk):
    """A disk that notes its effects and can fail at one of them, before or after it was done."""

    def __init__(self, fail: Callable[[int, str], BaseException | None] = lambda _n, _name: None) -> None:
        self.effects: list[tuple[str, str]] = []
        self.fail = fail
        for name in EFFECTS:
            setattr(self, name, self._watched(name, getattr(super(), name)))

    def _watched(self, name: str, effect: Callable[..., None]) -> Callable[..., None]:
        def watched(path: Path, *how: Any) -> None:
            self.effects.append((name, path.name))
            failure = self.fail(len(self.effects), name)
            if failure is not None:
                if name == "create":  # what fails in the middle of writing leaves a part
                    super(Recorder, self).create(path, how[0][: len(how[0]) // 2], how[1])
                raise failure
            effect(path, *how)

        return watched

    def names(self) -> list[str]:
        return [name for name, _ in self.effects]


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Writing


def test_a_file_is_synced_before_it_has_its_name_and_the_name_after(tmp_path: Path) -> None:
    disk = Recorder()
    assert files.write(disk, tmp_path / "key", b"secret", SECRET)
    assert disk.effects == [
        ("remove", ".key.new"),
        ("create", ".key.new"),
        ("sync", ".key.new"),
        ("rename", ".key.new"),
        ("sync_folder", tmp_path.name),
    ]
    assert files.read(tmp_path / "key") == b"secret"


@pytest.mark.parametrize("mode", [SECRET, PUBLIC])
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.write(PosixDisk(), tmp_path / "file", b"x", mode)
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "file") == mode


def test_what_is_there_is_synced_but_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write(PosixDisk(), path, b"content", PUBLIC)
    inode, disk = path.stat().st_ino, Recorder()
    assert not files.write(disk, path, b"content", PUBLIC)
    assert disk.names() == ["sync", "sync_folder"]
    assert path.stat().st_ino == inode


@pytest.mark.parametrize(
    "differ",
    [
        lambda path: path.write_bytes(b"CONTENT"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"content and more"),
        lambda path: path.chmod(0o644),
        lambda path: path.chmod(0o400),
        lambda path: (path.rename(path.with_name("there")), path.symlink_to(path.with_name("there"))),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: path.unlink(),
        *([lambda path: os.chown(path, 1, -1)] if os.geteuid() == 0 else []),
    ],
)
def test_whatever_differs_is_written_again(tmp_path: Path, differ: Callable[[Path], Any]) -> None:
    path = tmp_path / "file"
    files.write(PosixDisk(), path, b"content", SECRET)
    differ(path)
    assert files.write(PosixDisk(), path, b"content", SECRET)
    found = path.lstat()
    assert stat.S_ISREG(found.st_mode)
    assert (stat.S_IMODE(found.st_mode), found.st_uid, path.read_bytes()) == (SECRET, os.geteuid(), b"content")


def test_a_link_beside_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / ".file.new").symlink_to(victim)
    files.write(PosixDisk(), tmp_path / "file", b"content", SECRET)
    assert victim.read_bytes() == b"mine"
    assert names_in(tmp_path) == {"victim", "file"}


FULL = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "folder that is writable",
    errno.EACCES: "who runs the agent",
    errno.EPERM: "who runs the agent",
    errno.EIO: "the medium fails",
    errno.ENAMETOOLONG: "look at",
}


@pytest.mark.parametrize("code", FULL)
@pytest.mark.parametrize("at", ["remove", "create", "sync", "rename", "sync_folder"])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_disk_that_fails_leaves_the_old_file_and_says_what_to_do(
    tmp_path: Path, code: int, at: str, old: bytes | None
) -> None:
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    failed: list[str] = []

    def fail(_count: int, name: str) -> OSError | None:
        if name != at or failed:
            return None
        failed.append(name)
        return OSError(code, os.strerror(code))

    with pytest.raises(StorageError, match=FULL[code]) as caught:
        files.write(Recorder(fail), path, b"something new", SECRET)
    assert str(path) in str(caught.value)
    assert caught.value.ends_run
    assert files.read(path) == (b"something new" if at == "sync_folder" else old)
    assert names_in(tmp_path) <= {"file"}


def test_a_disk_that_fails_even_while_tidying_up_still_says_so(tmp_path: Path) -> None:
    def fail(_count: int, _name: str) -> OSError:
        return OSError(errno.EROFS, os.strerror(errno.EROFS))

    with pytest.raises(StorageError, match="writable"):
        files.write(Recorder(fail), tmp_path / "file", b"x", SECRET)


@pytest.mark.parametrize("cut", range(1, 7))
def test_power_that_fails_leaves_the_old_file_or_the_new_one(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(count: int, _name: str) -> BaseException | None:
        return CutError() if count == cut else None

    try:
        files.write(Recorder(fail), path, b"something new", SECRET)
    except CutError:
        assert path.read_bytes() == (b"old" if cut <= 4 else b"something new")
    else:
        assert cut == 6
    assert files.write(PosixDisk(), path, b"something new", SECRET) == (cut <= 4)
    assert names_in(tmp_path) == {"file"}
    assert path.read_bytes() == b"something new"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(st.binary(max_size=300), min_size=1, max_size=4), cut=st.integers(1, 24))
def test_after_any_cut_a_file_is_one_of_those_that_were_written(
    tmp_path: Path, contents: list[bytes], cut: int
) -> None:
    path, done = tmp_path / "file", 0
    path.unlink(missing_ok=True)
    disk = Recorder(lambda count, _name: CutError() if count == cut else None)
    try:
        for content in contents:
            files.write(disk, path, content, PUBLIC)
            done += 1
    except CutError:
        pass
    before = contents[done - 1] if done else None
    assert files.read(path) in {before, contents[min(done, len(contents) - 1)]}


# Reading


def test_nothing_there_is_no_error(tmp_path: Path) -> None:
    assert files.read(tmp_path / "file") is None
    assert files.read(tmp_path / "folder" / "file") is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "no regular file"),
        (lambda path: path.mkdir(), "no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "outside of its folder"),
        (lambda path: path.symlink_to("/etc/passwd"), "outside of its folder"),
        (lambda path: path.symlink_to("../elsewhere"), "outside of its folder"),
        (lambda path: path.symlink_to(path), "outside of its folder|Too many levels"),
        (lambda path: path.write_bytes(b"x" * (files.MAX_FILE + 1)), "larger than"),
    ],
)
def test_what_is_no_file_of_the_agent_is_named(tmp_path: Path, make: Callable[[Path], Any], words: str) -> None:
    (tmp_path / "certs").mkdir()
    path = tmp_path / "certs" / "file"
    make(path)
    with pytest.raises(StorageError, match=words):
        files.read(path)


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"content")
    (tmp_path / "file").symlink_to("real")
    assert files.read(tmp_path / "file") == b"content"
    (tmp_path / "dangling").symlink_to("nowhere")
    assert files.read(tmp_path / "dangling") is None


def test_a_file_as_large_as_allowed_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * files.MAX_FILE)
    assert files.read(tmp_path / "file") == b"x" * files.MAX_FILE


# Keeping secrets, setting aside, folders


@pytest.mark.parametrize(
    ("mode", "told"), [(0o644, 0o644), (0o640, 0o640), (0o700, 0o700), (0o600, None), (0o400, None)]
)
def test_a_secret_with_a_wide_mode_is_taken_away_from_others(tmp_path: Path, mode: int, told: int | None) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    path.chmod(mode)
    disk = Recorder()
    assert files.guard(disk, path) == told
    assert mode_of(path) == (mode if told is None else SECRET)
    assert disk.names() == ([] if told is None else ["restrict", "sync"])
    assert files.guard(PosixDisk(), path) is None


def test_only_files_are_guarded(tmp_path: Path) -> None:
    assert files.guard(PosixDisk(), tmp_path / "none") is None
    (tmp_path / "victim").write_bytes(b"")
    (tmp_path / "victim").chmod(0o644)
    (tmp_path / "link").symlink_to("victim")
    assert files.guard(PosixDisk(), tmp_path / "link") is None
    assert mode_of(tmp_path / "victim") == 0o644
    with pytest.raises(OSError, match="symbolic links"):
        PosixDisk().restrict(tmp_path / "link", SECRET)
    failing = Recorder(lambda _count, _name: OSError(errno.EPERM, "Operation not permitted"))
    with pytest.raises(StorageError, match="who owns"):
        files.guard(failing, tmp_path / "victim")


def test_what_is_damaged_gets_a_dated_name_and_nothing_is_overwritten(tmp_path: Path) -> None:
    path, kept = tmp_path / "device.key", []
    (tmp_path / "device.key.bad-20270102T030405Z-3").symlink_to("nowhere")
    for number in range(3):
        path.write_bytes(b"%d" % number)
        kept.append(files.set_aside(PosixDisk(), path, NOW))
        assert not path.exists()
    stem = "device.key.bad-20270102T030405Z"
    assert kept == [stem, f"{stem}-2", f"{stem}-4"]
    assert [(tmp_path / name).read_bytes() for name in kept] == [b"0", b"1", b"2"]
    (tmp_path / "next").mkdir()
    assert files.set_aside(PosixDisk(), tmp_path / "next", NOW) == "next.bad-20270102T030405Z"
    with pytest.raises(StorageError, match="cannot rename"):
        files.set_aside(PosixDisk(), path, NOW)


def test_a_folder_is_made_with_its_name_on_the_medium(tmp_path: Path) -> None:
    disk = Recorder()
    files.ensure_folder(disk, tmp_path / "certs")
    assert disk.effects == [("make_folder", "certs"), ("sync_folder", tmp_path.name)]
    assert mode_of(tmp_path / "certs") == 0o700
    files.ensure_folder(disk, tmp_path / "certs")
    assert len(disk.effects) == 2
    (tmp_path / "certs" / "device.key").write_bytes(b"x")
    with pytest.raises(OSError, match="not empty"):
        PosixDisk().remove_folder(tmp_path / "certs")
    (tmp_path / "certs" / "device.key").unlink()
    for _ in range(2):
        PosixDisk().remove_folder(tmp_path / "certs")
    assert names_in(tmp_path) == set()
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "certs"):
        with pytest.raises(StorageError, match="CERTS_DIR"):
            files.ensure_folder(PosixDisk(), path)


def test_one_agent_holds_a_folder_until_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    code = (
        "import sys, pathlib\nfrom enroll.disk import files\n"
        "with files.locked(files.PosixDisk(), pathlib.Path(sys.argv[1])):\n"
        "  print('held', flush=True)\n  sys.stdin.read()\n"
    )
    arguments = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(BusyFolderError), files.locked(PosixDisk(), folder):
            pass
        other.kill()
        other.wait(10)
    with files.locked(PosixDisk(), folder), pytest.raises(BusyFolderError), files.locked(PosixDisk(), folder):
        pass
    with files.locked(PosixDisk(), folder):
        pass


def test_an_error_inside_is_not_taken_for_a_held_folder(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), files.locked(PosixDisk(), tmp_path):
        raise BlockingIOError
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


# The real thing, on file systems of a test's own


def mounted(tmp_path: Path, options: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python with ``folder`` on a small file system of its own, in a namespace that ends with it."""
    script = f"import pathlib, sys\nfrom enroll.disk import files\nfolder = pathlib.Path({str(tmp_path)!r})\n{code}"
    command = f'mount -t tmpfs -o {options} none {tmp_path} && exec "$0" -c "$1"'
    arguments = ["unshare", "--mount", "--map-root-user", "sh", "-c", command, sys.executable, script]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.real
def test_a_medium_that_is_really_full_keeps_the_old_file(tmp_path: Path) -> None:
    ended = mounted(
        tmp_path,
        "size=64k",
        "disk = files.PosixDisk()\n"
        "files.write(disk, folder / 'file', b'old', files.SECRET)\n"
        "try: files.write(disk, folder / 'file', b'x' * 200_000, files.SECRET)\n"
        "except files.StorageError as e: print(e)\n"
        "print(files.read(folder / 'file'), sorted(p.name for p in folder.iterdir()))\n",
    )
    assert ended.stderr == ""
    told, kept = ended.stdout.splitlines()
    assert "No space left on device; free some space" in told
    assert kept == "b'old' ['file']"


@pytest.mark.real
def test_a_medium_that_is_really_read_only_is_named(tmp_path: Path) -> None:
    ended = mounted(
        tmp_path,
        "ro",
        "try: files.write(files.PosixDisk(), folder / 'file', b'x', files.SECRET)\n"
        "except files.StorageError as e: print(e)\n"
        "try: files.ensure_folder(files.PosixDisk(), folder / 'certs')\n"
        "except files.StorageError as e: print(e)\n"
        "with files.locked(files.PosixDisk(), folder): print('locked')\n",
    )
    assert ended.stderr == ""
    written, made, locked = ended.stdout.splitlines()
    assert "Read-only file system" in written
    assert "Read-only file system" in made
    assert locked == "locked"

"""The process dies at every single effect on the disk; the next start must end with one consistent identity.

The effects are counted by running once, so a new one cannot be forgotten. A write may also be torn: what was
created but not yet synced is then cut, emptied or zeroed, as a file system may do after a loss of power.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from enroll.disk.files import PosixDisk
from enroll.errors import StorageError


class PowerLossError(BaseException):
    """Nothing may catch this: the process is gone."""


class FailingDisk(PosixDisk):
    """A real disk that stops, or refuses, at one effect; ``torn`` says what unsynced files become."""

    def __init__(self, at: int, *, torn: str = "whole", error: OSError | None = None) -> None:
        self.at, self.torn, self.error = at, torn, error
        self.effects: list[str] = []
        self._unsynced: set[Path] = set()

    def _effect(self, name: str, path: Path) -> None:
        if len(self.effects) == self.at:
            if self.error is not None:
                raise self.error
            for file in self._unsynced:
                self._tear(file)
            raise PowerLossError(f"{name} {path.name}")
        self.effects.append(f"{name} {path.name}")

    def _tear(self, path: Path) -> None:
        data = path.read_bytes()
        torn = {"whole": data, "cut": data[: len(data) // 2], "empty": b"", "zero": bytes(len(data))}
        path.write_bytes(torn[self.torn])

    def make_folder(self, path: Path) -> None:
        self._effect("make_folder", path)
        super().make_folder(path)

    def create(self, path: Path, data: bytes, mode: int) -> None:
        self._effect("create", path)
        super().create(path, data, mode)
        self._unsynced.add(path)

    def sync(self, path: Path) -> None:
        self._effect("sync", path)
        super().sync(path)
        self._unsynced.discard(path)

    def rename(self, source: Path, target: Path) -> None:
        self._effect("rename", target)
        assert source not in self._unsynced, f"{target.name} got its name before its content was safe"
        super().rename(source, target)

    def sync_folder(self, path: Path) -> None:
        self._effect("sync_folder", path)
        super().sync_folder(path)

    def remove(self, path: Path) -> None:
        self._effect("remove", path)
        super().remove(path)


def effects_of_a_run(device: Any) -> list[str]:
    device.disk = FailingDisk(10**6)
    device.run()
    return list(device.disk.effects)


def check_one_identity(device: Any) -> None:
    keys = {(post["csr_pem"].strip(), post["wg_public_key"]) for post in device.bridge.posts}
    assert len(keys) == 1, "a second key was posted"
    flag = json.loads(device.read("enrolled"))
    assert flag["device_id"] == "dev-1"
    assert not [name for name in device.files() if name.startswith(".")]


@pytest.mark.parametrize("torn", ["whole", "cut", "empty", "zero"])
def test_a_crash_at_any_effect_of_a_first_boot_loses_nothing(device: Any, tmp_path: Path, torn: str) -> None:
    effects = effects_of_a_run(device)
    assert len(effects) > 30
    for at in range(len(effects)):
        device.bridge.requests.clear()
        device.folder = tmp_path / f"crash-{at}"
        device.settings["folder"] = device.folder
        device.disk = FailingDisk(at, torn=torn)
        with pytest.raises(PowerLossError):
            device.run()
        device.disk = PosixDisk()
        device.run()
        check_one_identity(device)


@pytest.mark.parametrize("torn", ["whole", "zero"])
def test_a_crash_while_a_damaged_enrollment_is_replaced_loses_nothing(device: Any, tmp_path: Path, torn: str) -> None:
    device.run()
    healthy = {path.name: path.read_bytes() for path in device.folder.iterdir()}
    (device.folder / "device.crt").write_bytes(b"")
    effects = effects_of_a_run(device)
    for at in range(len(effects)):
        device.folder = tmp_path / f"again-{at}"
        device.settings["folder"] = device.folder
        device.folder.mkdir()
        for name, data in (healthy | {"device.crt": b""}).items():
            (device.folder / name).write_bytes(data)
        device.disk = FailingDisk(at, torn=torn)
        with pytest.raises(PowerLossError):
            device.run()
        device.disk = PosixDisk()
        device.run()
        check_one_identity(device)
        assert device.read("device.key") == healthy["device.key"]


def test_a_full_disk_at_any_effect_is_told_and_recovered_from(device: Any, tmp_path: Path) -> None:
    effects = effects_of_a_run(device)
    for at in range(len(effects)):
        device.bridge.requests.clear()
        device.folder = tmp_path / f"full-{at}"
        device.settings["folder"] = device.folder
        device.disk = FailingDisk(at, error=OSError(28, "No space left on device"))
        with pytest.raises(StorageError, match="No space left"):
            device.run()
        assert "enrolled" not in device.files() or effects[at].startswith("sync_folder")
        device.disk = PosixDisk()
        device.run()
        check_one_identity(device)


def test_keys_are_safe_before_the_first_request_and_the_flag_is_last(device: Any) -> None:
    seen: list[set[str]] = []
    right = device.bridge.root

    def root() -> Any:
        seen.append(device.files())
        return right()

    device.bridge.root = root
    effects = effects_of_a_run(device)
    assert seen == [{"device.key", "wg.key", "device.csr"}]
    renames = [effect.split()[1] for effect in effects if effect.startswith("rename")]
    assert renames == [
        "device.key",
        "wg.key",
        "device.csr",
        "device.crt",
        "ca-chain.crt",
        "root.crt",
        "wg0.conf",
        "enrolled",
    ]
    assert effects[-1].startswith("sync_folder")

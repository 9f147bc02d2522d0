"""Client authentication by TLS with a key of each provider, in a process prepared as the agent's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from enroll.keys.tpm_command import TpmCommand
from tests.contract.keys.conftest import Kind
from tests.contract.keys.tls_peer import Authority, Server, client, pem, server

SERVERS = [
    ("P-256", ""),
    ("P-256", "TLS 1.2"),
    ("P-256", "P-256 only"),
    ("P-384", "TLS 1.2"),
    ("RSA-2048", "P-256 only"),
    ("Ed25519", "TLS 1.2"),
]
WITH_TLS = ["file", pytest.param("tpm", marks=pytest.mark.real)]


class Stage:
    """A device with a certificate, and a root that its servers have too."""

    def __init__(self, kind: Kind, folder: Path, project: Path, root: str = "P-256") -> None:
        self.authority = Authority.new(root)
        self.folder = folder
        self.key = folder / "device.key"
        self.chain = folder / "chain.pem"
        made = kind.provider().generate()
        self.key.write_bytes(made.content())
        self.chain.write_bytes(pem(self.authority.leaf("dev-1", made.private.public_key())))
        self.environment = kind.environment | {"PYTHONPATH": str(project)}

    def connect(self, to: Server, interpreter: str) -> dict[str, object]:
        files = (to.root, self.chain, self.key)
        return client(interpreter, to.port, *files, environment=self.environment, folder=self.folder)


@pytest.mark.parametrize("name", WITH_TLS)
@pytest.mark.parametrize(("server_key", "limit"), SERVERS)
def test_the_server_sees_the_device(
    name: str,
    server_key: str,
    limit: str,
    kinds: Callable[[str], Kind],
    tmp_path: Path,
    project: Path,
    interpreter: str,
) -> None:
    stage = Stage(kinds(name), tmp_path, project, server_key)
    with server(stage.authority, tmp_path, kind=server_key, limit=limit) as serving:
        told = stage.connect(serving, interpreter)
    assert told["name"] == "dev-1", told
    assert told["version"] == ("TLSv1.2" if limit == "TLS 1.2" else "TLSv1.3")
    assert told["stderr"] == ""


@pytest.mark.parametrize("name", WITH_TLS)
def test_large_rsa_keys_of_servers(
    name: str, kinds: Callable[[str], Kind], tmp_path: Path, project: Path, interpreter: str
) -> None:
    """A TPM knows no RSA above 2048 bits; tpm2-openssl before 1.2 has it verify the server all the same."""
    kind = kinds(name)
    stage = Stage(kind, tmp_path, project, "RSA-4096")
    with server(stage.authority, tmp_path, kind="RSA-4096") as serving:
        told = stage.connect(serving, interpreter)
    old = name == "tpm" and (TpmCommand(kind.environment).version() or (0,)) < (1, 2)
    assert "certificate signature failure" in str(told["why"]) if old else told["name"] == "dev-1", told


@pytest.mark.parametrize("name", WITH_TLS)
def test_a_key_that_does_not_fit_the_leaf(
    name: str, kinds: Callable[[str], Kind], tmp_path: Path, project: Path, interpreter: str
) -> None:
    stage = Stage(kinds(name), tmp_path, project)
    stage.key.write_bytes(kinds(name).provider().generate().content())
    with server(stage.authority, tmp_path) as serving:
        told = stage.connect(serving, interpreter)
    assert told["error"] == "StorageError", told
    assert "cannot use" in str(told["why"])
    assert "device.key" in str(told["why"])


@pytest.mark.real
@pytest.mark.parametrize("interpreter", [sys.executable, "/usr/bin/python3"])
@pytest.mark.parametrize("name", ["tpm", "pkcs11"])
def test_a_key_in_a_file_goes_on_beside_hardware(
    name: str, kinds: Callable[[str], Kind], tmp_path: Path, project: Path, interpreter: str
) -> None:
    stage = Stage(kinds("file"), tmp_path, project)
    stage.environment = kinds(name).environment | {"PYTHONPATH": str(project), "CERTS_DIR": str(tmp_path)}
    with server(stage.authority, tmp_path) as serving:
        told = stage.connect(serving, interpreter)
    assert told["name"] == "dev-1", told


@pytest.mark.real
def test_a_token_without_the_provider_of_openssl_says_so(
    kinds: Callable[[str], Kind], tmp_path: Path, project: Path, interpreter: str
) -> None:
    kind = kinds("pkcs11")
    stage = Stage(kind, tmp_path, project)
    stage.environment["OPENSSL_MODULES"] = str(tmp_path)
    with server(stage.authority, tmp_path) as serving:
        told = stage.connect(serving, interpreter)
    assert told["error"] == "StorageError", told
    assert "pkcs11-provider" in str(told["why"])


@pytest.mark.real
@pytest.mark.parametrize("name", ["file", "tpm"])
def test_the_systems_own_python_with_its_old_cryptography(
    name: str, kinds: Callable[[str], Kind], tmp_path: Path, project: Path
) -> None:
    stage = Stage(kinds(name), tmp_path, project)
    with server(stage.authority, tmp_path, limit="P-256 only") as serving:
        told = stage.connect(serving, "/usr/bin/python3")
    assert told["name"] == "dev-1", told

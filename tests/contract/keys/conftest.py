"""One key provider after the other: a file, a TPM (swtpm), a token (SoftHSM)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from compose.real.soft_token import SoftToken
from compose.real.software_tpm import SoftwareTpm
from enroll.config import Settings, load
from enroll.keys import KeyProvider, provider

TOKEN = "a token; of this test"
REAL = {"file": (), "tpm": (pytest.mark.real,), "pkcs11": (pytest.mark.real,)}
NEEDED = {
    "BRIDGE_API_URL": "https://bridge.example",
    "DEVICE_ID": "dev-1",
    "STEP_CA_FINGERPRINT": "ab" * 32,
}


@dataclass(frozen=True)
class Kind:
    """A provider as an operator configures it."""

    name: str
    variables: Mapping[str, str]
    """Variables of the agent."""
    around: Mapping[str, str] = field(default_factory=dict)
    """Variables by which others find the hardware."""

    @property
    def settings(self) -> Settings:
        return load(NEEDED | {"ENROLL_KEY": self.name} | dict(self.variables))

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment of an agent with this provider."""
        known = {name: value for name, value in os.environ.items() if not name.startswith(("ENROLL_", "OPENSSL_"))}
        return known | NEEDED | {"ENROLL_KEY": self.name} | dict(self.variables) | dict(self.around)

    def provider(self) -> KeyProvider:
        """A provider that remembers nothing of another one."""
        return provider(self.settings)


@pytest.fixture(scope="session")
def session_environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="session")
def tpm(tmp_path_factory: pytest.TempPathFactory, session_environment: pytest.MonkeyPatch) -> Iterator[SoftwareTpm]:
    """A TPM that this process finds; cleared, stopped or replaced by nobody."""
    with SoftwareTpm(tmp_path_factory.mktemp("tpm")) as made:
        for name, value in made.environment.items():
            session_environment.setenv(name, value)
        yield made


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory, session_environment: pytest.MonkeyPatch) -> SoftToken:
    """The only tokens of this process: their library reads its configuration once."""
    made = SoftToken(tmp_path_factory.mktemp("token"))
    made.make(TOKEN)
    for name, value in made.environment.items():
        session_environment.setenv(name, value)
    return made


def token_variables(tokens: SoftToken) -> dict[str, str]:
    return {
        "ENROLL_PKCS11_MODULE": str(tokens.module),
        "ENROLL_PKCS11_TOKEN": TOKEN,
        "ENROLL_PKCS11_PIN_FILE": str(tokens.pin_file),
    }


@pytest.fixture(scope="session")
def kinds(request: pytest.FixtureRequest) -> Callable[[str], Kind]:
    def find(name: str) -> Kind:
        match name:
            case "tpm":
                found: SoftwareTpm = request.getfixturevalue("tpm")
                return Kind("tpm", {}, found.environment)
            case "pkcs11":
                tokens: SoftToken = request.getfixturevalue("tokens")
                return Kind("pkcs11", token_variables(tokens), tokens.environment)
            case _:
                return Kind("file", {})

    return find


@pytest.fixture(params=[pytest.param(name, marks=marks) for name, marks in REAL.items()])
def kind(request: pytest.FixtureRequest, kinds: Callable[[str], Kind]) -> Kind:
    return kinds(request.param)


@pytest.fixture
def project() -> Path:
    return Path(__file__).parents[3]


@pytest.fixture(scope="session")
def interpreter() -> str:
    return sys.executable

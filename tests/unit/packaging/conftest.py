"""The build scripts as a developer runs them; the libraries they want are installed once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
EPOCH = "1800000000"


@pytest.fixture(scope="session")
def project() -> Path:
    return PROJECT


@pytest.fixture(scope="session")
def build_zipapp() -> Callable[..., str]:
    def build(output: Path, *options: str, epoch: str = EPOCH) -> str:
        script = PROJECT / "packaging" / "agent" / "build_zipapp.py"
        command = [sys.executable, script, "--output", output, *options]
        environment = os.environ | {"SOURCE_DATE_EPOCH": epoch}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return build


@pytest.fixture(scope="session")
def zipapp(build_zipapp: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zipapp") / "iot-enroll.pyz"
    build_zipapp(path)
    return path

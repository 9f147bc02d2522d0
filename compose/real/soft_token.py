"""A PKCS#11 token in software (SoftHSM 2), for tests: a folder, no process."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from compose.real.owned_process import ServerFailed

_LIBRARIES = "lib/*/softhsm/libsofthsm2.so", "lib*/softhsm/libsofthsm2.so", "lib*/pkcs11/libsofthsm2.so"


@dataclass(frozen=True)
class SoftToken:
    """Tokens in ``folder``, each with the PIN of ``pin_file``."""

    folder: Path
    pin: str = "a PIN of this test 4711"

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which SoftHSM finds its tokens; read when the library is loaded."""
        return {"SOFTHSM2_CONF": str(self.folder / "softhsm2.conf")}

    @property
    def pin_file(self) -> Path:
        """File that holds the PIN, for its owner alone."""
        return self.folder / "pin"

    @property
    def module(self) -> Path:
        """The library."""
        for pattern in _LIBRARIES:
            if found := sorted(Path("/usr").glob(pattern)):
                return found[0]
        raise ServerFailed("SoftHSM2 is missing: run `compose/real/install.sh`")

    def make(self, label: str) -> None:
        """Make a token with this label; SoftHSM gives it a new serial number each time."""
        program = shutil.which("softhsm2-util")
        if program is None:
            raise ServerFailed("softhsm2-util is missing: run `compose/real/install.sh`")
        (self.folder / "tokens").mkdir(parents=True, exist_ok=True)
        configuration = f"directories.tokendir = {self.folder / 'tokens'}\nobjectstore.backend = file\n"
        (self.folder / "softhsm2.conf").write_text(configuration)
        self.pin_file.write_text(self.pin + "\n")
        self.pin_file.chmod(0o600)
        command = [program, "--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", self.pin]
        subprocess.run(command, env=os.environ | self.environment, capture_output=True, check=True, timeout=60)

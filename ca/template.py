"""Certificate templates and provisioner claims (signatures first; the bodies follow)."""

from ca.models import Provisioner


def device_template() -> str:
    """The template of the device provisioner."""
    raise NotImplementedError


def server_template(names: tuple[str, ...]) -> str:
    """The template of the server provisioner, locked to ``names``."""
    raise NotImplementedError


def judge(provisioner: Provisioner) -> tuple[str, ...]:
    """Say what keeps ``provisioner`` from being ours, each with the lines to add; empty when nothing does."""
    raise NotImplementedError

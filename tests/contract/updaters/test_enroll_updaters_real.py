"""The update clients' files, read by the very libraries that the clients read them with."""

from __future__ import annotations

import ctypes
import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from enroll import updaters
from enroll.config import Settings
from enroll.names import BridgeUrl, DeviceId, Fingerprint
from enroll.record import Record

pytestmark = pytest.mark.real

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FOLDER = Path('/c e"r\\t;s#{}@/')
SETTINGS = Settings(
    BridgeUrl.parse("https://b.example"), DeviceId("dev-1"), FOLDER, (Fingerprint("0" * 64),), device_type='a\\s "b" é'
)
RECORD = Record(
    device_id="dev-1", generation=1, serial=1, leaf_sha256="0" * 64, address=None, not_after=NOW, renew_after=NOW,
    enrolled_at=NOW, bridge="https://b.example", endpoint=None, mqtt=None, hawkbit_url="https://[fd00::1]:8443",
    hawkbit_tenant="DEFAULT",
)  # fmt: skip


def test_raucs_file_by_glib() -> None:
    glib = ctypes.CDLL("libglib-2.0.so.0")
    glib.g_key_file_new.restype = ctypes.c_void_p
    for reader in (glib.g_key_file_get_string, glib.g_key_file_get_value):
        reader.restype = ctypes.c_char_p
        reader.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]
    content = updaters.rauc(SETTINGS, RECORD, FOLDER)
    file = ctypes.c_void_p(glib.g_key_file_new())
    assert glib.g_key_file_load_from_data(file, content, ctypes.c_size_t(len(content)), 0, None)

    def client(name: bytes) -> str:
        return glib.g_key_file_get_string(file, b"client", name, None).decode()  # type: ignore[no-any-return]

    assert client(b"ssl_key") == f"{FOLDER}/device.key"
    assert client(b"ssl_cert") == f"{FOLDER}/device.crt"
    assert client(b"hawkbit_server") == "[fd00::1]:8443"
    assert client(b"target_name") == "dev-1"
    assert glib.g_key_file_get_value(file, b"device", b"device_type", None).decode() == 'a\\s "b" é'
    glib.g_key_file_free(file)


def test_swupdates_section_by_libconfig(tmp_path: Path) -> None:
    section = tmp_path / "suricatta.cfg"
    section.write_bytes(updaters.swupdate(dataclasses.replace(SETTINGS), RECORD, FOLDER))
    main = tmp_path / "swupdate.cfg"
    main.write_text(f'globals : {{ verbose = true; }};\n@include "{section}"\n')
    library = ctypes.CDLL("libconfig.so.9")
    config = ctypes.create_string_buffer(4096)  # config_t, and to spare
    library.config_init(config)
    assert library.config_read_file(config, str(main).encode())
    text, number = ctypes.c_char_p(), ctypes.c_int()
    for name, value in {
        "tenant": "DEFAULT",
        "id": "dev-1",
        "url": "https://[fd00::1]:8443",
        "cafile": f"{FOLDER}/root.crt",
        "sslkey": f"{FOLDER}/device.key",
        "sslcert": f"{FOLDER}/device.crt",
    }.items():
        assert library.config_lookup_string(config, f"suricatta.{name}".encode(), ctypes.byref(text))
        assert text.value is not None
        assert text.value.decode() == value
    assert library.config_lookup_int(config, b"suricatta.polldelay", ctypes.byref(number))
    assert number.value == 300
    library.config_destroy(config)

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGES = ("bridge", "enroll", "ca", "thingsboard", "hawkbit", "wireguard")
SIBLINGS = ("ca", "thingsboard", "hawkbit", "wireguard")

# file to plant, what it imports, the contract that must break
PLANTED = [
    ("bridge/model/planted.py", "bridge.enrollment.decision", "bridge-layers"),
    ("bridge/ports/planted.py", "bridge.store.open", "bridge-layers"),
    ("bridge/config/planted.py", "bridge.ports.registry", "bridge-layers"),
    ("bridge/enrollment/planted.py", "bridge.routes.api", "bridge-layers"),
    ("bridge/enrollment/planted_sibling.py", "bridge.lifecycle.service", "bridge-layers"),
    ("bridge/routes/planted.py", "bridge.store.open", "bridge-layers"),
    ("bridge/adapters/planted.py", "bridge.app.serving", "bridge-layers"),
    ("enroll/trust/paths.py", "enroll.agent", "enroll-layers"),
    ("ca/planted.py", "thingsboard.client", "packages"),
    ("hawkbit/planted.py", "bridge.model.identity", "packages"),
    ("wireguard/planted.py", "enroll.keys", "packages"),
    ("bridge/routes/planted_client.py", "ca.client", "adapters-only"),
    ("bridge/app/planted_client.py", "hawkbit.client", "adapters-only"),
    ("bridge/reconcile/planted_client.py", "thingsboard.client", "adapters-only"),
    ("bridge/enrollment/planted_wire.py", "enroll.wire", "wire-only"),
    ("bridge/routes/planted_agent.py", "enroll.keys", "wire-only"),
    ("bridge/adapters/planted_standin.py", "ca.standin", "embedded-only"),
    ("bridge/lifecycle/planted_sql.py", "sqlalchemy", "use-cases-pure"),
    ("bridge/admission/planted_http.py", "httpx", "use-cases-pure"),
    ("bridge/routes/planted_sql.py", "sqlmodel", "store-alone-speaks-sql"),
    ("bridge/app/planted_sql.py", "sqlite3", "store-alone-speaks-sql"),
    ("enroll/keys/file.py", "pydantic", "device-small"),
    ("enroll/keys/csr.py", "ca.models", "device-small"),
    ("ca/client.py", "fastapi", "clients-no-servers"),
    ("hawkbit/transport.py", "uvicorn", "clients-no-servers"),
    ("wireguard/sync.py", "wireguard.standin", "clients-no-servers"),
]
UNNAMED = [("bridge/planted.py", "bridge-layers"), ("enroll/planted.py", "enroll-layers")]


def lint(folder: Path, contract: str | None = None) -> tuple[int, str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    command += ["--contract", contract] if contract else []
    environment = os.environ | {"COLUMNS": "400", "PYTHONPATH": str(folder), "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def copied(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(project / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(project / "pyproject.toml", folder)
    return folder


@pytest.fixture(scope="module")
def broken(copied: Path) -> str:
    for name, wanted, _ in PLANTED:
        path = copied / name
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(f"\nimport {wanted}\n")
    status, output = lint(copied)
    assert status == 1, output
    return output


def test_contracts_hold(project: Path) -> None:
    status, output = lint(project)
    assert status == 0, output
    assert "0 broken" in output


@pytest.mark.parametrize(("name", "wanted", "contract"), PLANTED, ids=[f"{c}:{n}" for n, _, c in PLANTED])
def test_planted_violation_is_caught(project: Path, broken: str, name: str, wanted: str, contract: str) -> None:
    module = name.removesuffix(".py").replace("/", ".")
    told = re.search(rf"{re.escape(module)} -> {re.escape(wanted.partition('.')[0])}[\w.]* \(l\.", broken)
    assert told is not None, broken
    title = re.escape(title_of(project, contract))
    assert re.search(rf"^{title} BROKEN", broken, re.MULTILINE), broken


@pytest.mark.parametrize(("name", "contract"), UNNAMED)
def test_module_without_a_layer_is_caught(copied: Path, name: str, contract: str) -> None:
    (copied / name).write_text('"""In no layer."""\n')
    status, output = lint(copied, contract)
    (copied / name).unlink()
    assert status == 1
    assert "planted" in output


def test_every_client_module_is_under_contract(project: Path) -> None:
    contracts = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    named = next(one for one in contracts if one["id"] == "clients-no-servers")["source_modules"]
    clients = {
        f"{package}.{path.stem}"
        for package in SIBLINGS
        for path in (project / package).glob("*.py")
        if path.stem != "__init__" and not path.stem.startswith("standin")
    }
    assert set(named) == clients


def test_stand_ins_are_built_in_one_place_only(imports: list[tuple[str, str]]) -> None:
    parts = re.compile(rf"({'|'.join(SIBLINGS)})\.standin")
    outside = {(who, what) for who, what in imports if parts.match(what) and not parts.match(who)}
    assert {who for who, _ in outside} == {"bridge.adapters.embedded"}, outside


def test_product_imports_no_script_and_no_test(imports: list[tuple[str, str]]) -> None:
    roots = {"compose", "tests", "conftest", "pytest", "trustme", "hypothesis"}
    assert [pair for pair in imports if pair[1].partition(".")[0] in roots] == []


def test_no_catch_all_module_names(product_files: list[Path]) -> None:
    banned = re.compile(r"(^|_)(utils?|commons?|helpers?|misc|managers?|base)(_|$)")
    assert [str(path) for path in product_files for part in path.with_suffix("").parts if banned.search(part)] == []


def title_of(project: Path, contract: str) -> str:
    contracts = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    title: str = next(one for one in contracts if one["id"] == contract)["name"]
    return title

"""The Yocto layer, as far as it can be judged without BitBake."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROVIDERS = {"cryptography": "python3-cryptography", "jwt": "python3-pyjwt", "paho": "python3-paho-mqtt"}
"""Layers' packages: OpenEmbedded-Core has the first, meta-python the others."""
OPTIONAL = {"pkcs11"}
"""Imported only where it is configured; no layer of meta-openembedded carries it."""


def assignments(text: str) -> dict[str, str]:
    """The variables of a recipe, continuation lines joined; of several assignments the last."""
    joined = text.replace("\\\n", " ")
    found = re.findall(r'^([A-Z][\w:${}.-]*(?:\[\w+\])?) *(?::|\+|\?|\.)?=\+? *"(.*)"$', joined, re.MULTILINE)
    return {name: " ".join(value.split()) for name, value in found}


def function(text: str, name: str) -> str:
    found = re.search(rf"^{name}\(\) {{\n(.*?)^}}$", text, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


@pytest.fixture
def layer(project: Path) -> Path:
    return project / "packaging" / "yocto" / "meta-iot-enroll"


@pytest.fixture
def recipe(layer: Path) -> Path:
    (found,) = layer.glob("recipes-*/*/*.bb")
    return found


def test_the_layer_names_itself_and_the_series_it_is_for(layer: Path) -> None:
    told = assignments((layer / "conf" / "layer.conf").read_text())
    assert told["BBFILE_COLLECTIONS"] == "iot-enroll"
    assert told["BBFILE_PATTERN_iot-enroll"] == "^${LAYERDIR}/"
    assert told["LAYERSERIES_COMPAT_iot-enroll"].split() == ["scarthgap", "wrynose"]
    assert "meta-python" in told["LAYERDEPENDS_iot-enroll"].split()


def test_the_recipe_has_the_projects_version_and_licence(recipe: Path, project: Path) -> None:
    told = assignments(recipe.read_text())
    with (project / "pyproject.toml").open("rb") as file:
        declared = tomllib.load(file)["project"]
    assert recipe.name == f"iot-enroll_{declared['version']}.bb"
    assert told["LICENSE"] == declared["license"]
    digest = hashlib.md5((project / "LICENSE").read_bytes(), usedforsecurity=False).hexdigest()
    assert told["LIC_FILES_CHKSUM"] == f"file://LICENSE;md5={digest}"
    for needed in ("SUMMARY", "SECTION", "SRC_URI", "S", "FILES:${PN}", "CONFFILES:${PN}", "SYSTEMD_SERVICE:${PN}"):
        assert told[needed]


def test_every_file_it_takes_is_there(recipe: Path) -> None:
    told = assignments(recipe.read_text())
    beside = re.fullmatch(r"\$\{THISDIR\}/(.*):", told["FILESEXTRAPATHS:prepend"])
    assert beside
    for uri in told["SRC_URI"].split():
        named = re.fullmatch(r"file://(?P<path>[\w./-]+);subdir=source", uri)
        assert named, uri
        assert (recipe.parent / beside[1] / named["path"]).exists(), uri


def test_what_the_agent_imports_is_what_it_depends_on(recipe: Path, project: Path) -> None:
    known = json.loads((project / "tests" / "data" / "yocto" / "python3-modules.json").read_text())["modules"]
    depends = set(assignments(recipe.read_text())["RDEPENDS:${PN}"].split())
    needed: set[str] = set()
    for path in (project / "enroll").rglob("*.py"):
        for module in imported(path) - OPTIONAL - {"enroll"} - set(sys.builtin_module_names):
            packages = {PROVIDERS[module]} if module in PROVIDERS else set(known[module])
            assert packages & depends, (path, module, packages)
            needed |= packages
    assert depends <= needed, depends - needed


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_its_tasks_compile_and_install_what_its_packages_hold(recipe: Path, project: Path, tmp_path: Path) -> None:
    """The shell of do_compile and do_install, with the variables as BitBake would set them."""
    text, source, image = recipe.read_text(), tmp_path / "source", tmp_path / "image"
    told = assignments(text)
    for uri in told["SRC_URI"].split():
        name = uri.removeprefix("file://").partition(";")[0]
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", project / name, source / name], check=True)
    variables = {
        "D": str(image),
        "PV": "0.1.0",
        "PYTHON": sys.executable,
        "PYTHON_SITEPACKAGES_DIR": "/usr/lib/python3.11/site-packages",
        "bindir": "/usr/bin",
        "nonarch_libdir": "/usr/lib",
        "sysconfdir": "/etc",
        "systemd_system_unitdir": "/usr/lib/systemd/system",
        "SOURCE_DATE_EPOCH": "1800000000",
    }
    script = "set -e\n" + function(text, "do_compile") + function(text, "do_install")
    subprocess.run(["sh", "-c", script], cwd=source, env=variables | {"PATH": os.environ["PATH"]}, check=True)

    installed = {path.relative_to(image).as_posix(): path for path in image.rglob("*") if path.is_file()}
    assert {name for name in installed if "site-packages" not in name} == {
        "usr/bin/iot-enroll",
        "usr/lib/iot-enroll/after-run",
        "etc/iot-enroll.conf",
        *(f"usr/lib/systemd/system/{unit.name}" for unit in (project / "packaging" / "systemd").glob("iot-enroll*")),
    }
    assert "2027" in installed["usr/lib/python3.11/site-packages/enroll/built.py"].read_text()
    assert installed["etc/iot-enroll.conf"].stat().st_mode & 0o777 == 0o600
    # It runs from there, isolated as it is.
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); import runpy; runpy.run_path(sys.argv.pop(1))"
    command = [sys.executable, "-I", "-c", code, image / "usr/lib/python3.11/site-packages"]
    done = subprocess.run(
        [*command, installed["usr/bin/iot-enroll"], "--help"], capture_output=True, text=True, check=False
    )
    assert "BRIDGE_API_URL" in done.stdout, done.stderr

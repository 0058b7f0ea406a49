"""The version stands in one place, and whatever repeats it agrees."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import yaml

import app
from app.rest.app import create_app
from app.runtime.health import Health

ROOT = Path(__file__).parents[2]


def test_it_is_written_once_and_repeated_truly():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"] == {"path": "app/__init__.py"}
    chart = yaml.safe_load((ROOT / "helm" / "chat-service" / "Chart.yaml").read_text())
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:[ab.-].+)?", app.__version__)
    assert chart["version"] == chart["appVersion"] == app.__version__
    assert f"ARG VERSION={app.__version__}\n" in (ROOT / "Dockerfile").read_text()
    assert re.search(rf"^## \[?{re.escape(app.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_both_documents_have_it():
    served = create_app(
        SimpleNamespace(settings=SimpleNamespace(max_body_bytes=1 << 18, metrics_port=None)), Health(None)
    )
    for document in (served.ctx.openapi, served.ctx.asyncapi):
        assert document["info"]["version"] == app.__version__


def test_the_command_prints_it():
    done = subprocess.run(
        [sys.executable, "-m", "app", "--version"], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == f"{app.__version__}\n"


def test_the_licence_is_named_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()
    assert 'licenses="Apache-2.0"' in (ROOT / "Dockerfile").read_text()
    assert "[Apache-2.0](LICENSE)" in (ROOT / "README.md").read_text()

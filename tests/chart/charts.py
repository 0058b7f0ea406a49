"""The chart, rendered by the real helm, and ways into what it makes."""

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from binaries import binary

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "chat-service"
MINIMAL = CHART / "ci" / "minimal-values.yaml"
FULL = CHART / "ci" / "full-values.yaml"
DEVELOPMENT = ROOT / "k8s" / "values.yaml"
OLDEST, NEWEST = "1.30", "1.37"
TIMEOUT = 60

Manifest = dict[str, Any]


class HelmError(Exception):
    """What helm said when it failed."""


def run(*command: str, given: str | None = None, timeout: int = TIMEOUT) -> str:
    """Run a command in the root folder; gives what it printed, and fails with that if the command does."""
    done = subprocess.run(
        command, cwd=ROOT, input=given, capture_output=True, check=False, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"{command[0]}: {(done.stdout + done.stderr)[-3000:]}"
    return done.stdout


def helm(*arguments: str) -> str:
    done = subprocess.run(
        [binary("helm"), *arguments], capture_output=True, check=False, text=True, timeout=TIMEOUT
    )
    if done.returncode:
        raise HelmError(done.stdout + done.stderr)
    return done.stdout


@cache
def _rendered(values: Path, kubernetes: str, more: tuple[str, ...]) -> str:
    sets = [part for each in more for part in ("--set-json", each)]
    return helm(
        *("template", "chat", str(CHART), "--namespace", "shop", "--kube-version", kubernetes),
        *("--values", str(values), *sets),
    )


def render(values: Path = MINIMAL, *more: str, kubernetes: str = NEWEST) -> list[Manifest]:
    """Render the chart with a file of values and, after it, `path=json` each."""
    return [each for each in yaml.safe_load_all(_rendered(values, kubernetes, more)) if each]


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [each for each in manifests if each["kind"] == kind]


def the(manifests: list[Manifest], kind: str, suffix: str) -> Manifest:
    """Give the one object of a kind whose name ends with a suffix."""
    (found,) = [each for each in of_kind(manifests, kind) if each["metadata"]["name"].endswith(suffix)]
    return found


def pod_templates(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Give the name and the template of every pod."""
    for each in manifests:
        if each["kind"] in {"Deployment", "Job"}:
            yield each["metadata"]["name"], each["spec"]["template"]
        if each["kind"] == "Pod":
            yield each["metadata"]["name"], each


def containers(template: Manifest) -> list[Manifest]:
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def environment(template: Manifest) -> dict[str, Manifest]:
    """Give the variables of a pod's first container by their names."""
    variables = containers(template)[0]["env"]
    assert len({each["name"] for each in variables}) == len(variables)
    return {each["name"]: each for each in variables}

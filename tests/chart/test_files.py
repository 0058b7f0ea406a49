"""The files around the chart name what is there: images, stages, settings, commands, folders."""

import json
import re
import sys
from pathlib import Path

import pytest
import readme
import yaml
from charts import CHART, DEVELOPMENT, FULL, ROOT, containers, of_kind, pod_templates, render, run

from app.config.settings import Settings, specs

pytestmark = pytest.mark.chart

DOCKERFILE = (ROOT / "Dockerfile").read_text()
STAGES = set(re.findall(r"^FROM .* AS (\w+)$", DOCKERFILE, re.MULTILINE))
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SKAFFOLD = list(yaml.safe_load_all((ROOT / "skaffold.yaml").read_text()))
DEVELOPMENT_SERVERS = [
    each
    for name in ("postgres", "redis", "master")
    for each in yaml.safe_load_all((ROOT / f"k8s/{name}.yaml").read_text())
]
BIN = Path(sys.prefix) / "bin"


def test_hadolint_finds_no_fault():
    assert run(str(BIN / "hadolint"), "Dockerfile") == ""


def test_the_image_builds_anywhere_and_runs_as_a_number():
    assert "<<" not in DOCKERFILE
    assert "--link" not in DOCKERFILE
    assert {"build", "runtime", "development", "production"} == STAGES
    assert DOCKERFILE.rstrip().endswith("FROM runtime AS production")
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${BASE_IMAGE}", "runtime"}
    runtime = DOCKERFILE.split(" AS runtime\n")[1].split("\nFROM")[0]
    assert re.findall(r"^USER (.*)", runtime, re.MULTILINE) == ["10001:10001"]
    assert 'ENTRYPOINT ["chat-service"]' in runtime


def test_the_chart_runs_the_image_as_it_was_built():
    manifests = render()
    exposed = set(map(int, re.search(r"^EXPOSE (.*)", DOCKERFILE, re.MULTILINE)[1].split()))
    ports = {
        port["containerPort"]
        for _, template in pod_templates(render(FULL))
        for container in containers(template)
        for port in container.get("ports", [])
    }
    assert exposed == ports == {4000, 4001, 4002, 9090}
    for name in ("HTTP_PORT", "WS_PORT", "WORKER_PORT", "DRAIN_TIMEOUT"):
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        assert str(values["settings"][name]) == specs()[name].default
    users = {template["spec"]["securityContext"]["runAsUser"] for _, template in pod_templates(manifests)}
    assert users == {int(re.search(r"^USER (\d+)", DOCKERFILE, re.MULTILINE)[1])}


def test_every_command_that_is_run_is_one_of_the_service():
    usage = run(sys.executable, "-m", "app", "--help")
    known = set(re.findall(r"^ {4}(\w+) ", usage, re.MULTILINE))
    run_by_chart = {
        containers(template)[0]["args"][0] for name, template in pod_templates(render(FULL)) if "-test" not in name
    }
    assert run_by_chart == {"serve", "worker", "migrate", "config"}
    assert run_by_chart <= known


def test_the_readme_has_the_values_as_they_are():
    text = (CHART / "README.md").read_text()
    values = (CHART / "values.yaml").read_text()
    assert text == readme.written(text, values), "run `make chart`"
    documented = [path for path, _ in readme.documented(values)]
    missing = [
        path for path in leaves(yaml.safe_load(values)) if not any(is_within(path, each) for each in documented)
    ]
    assert missing == []


def leaves(values, path=""):
    if not isinstance(values, dict) or not values:
        return [path]
    return [leaf for key, value in values.items() for leaf in leaves(value, f"{path}\0{key}" if path else key)]


def is_within(leaf, path):
    return f"{leaf}\0".startswith(path.replace(".", "\0") + "\0")


def test_the_templates_and_the_values_name_the_same():
    templates = "".join(file.read_text() for file in (CHART / "templates").rglob("*") if file.is_file())
    values = (CHART / "values.yaml").read_text()
    for path in set(re.findall(r"[.$]Values\.([\w.]+)", templates)):
        node = yaml.safe_load(values)
        for key in path.split("."):
            assert key in node or path in OPTIONAL, f".Values.{path} has no default"
            node = node.get(key)
    keys = {path.split(".")[-1] for path, _ in readme.documented(values) if not path.startswith("secrets.")}
    assert [key for key in keys if not re.search(rf"""[."]{key}\b""", templates)] == []


# Settings whose default is the service's own.
OPTIONAL = {"settings.WEBHOOK_URL", "settings.ALLOWED_ORIGINS", "settings.MAX_SOCKETS"}


def test_compose_is_valid_and_names_what_is_there():
    run(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "compose.yaml")
    services = COMPOSE["services"]
    assert services.keys() == {"postgres", "redis", "migrate", "chat", "worker", "master"}
    assert {each["build"]["target"] for each in services.values() if "build" in each} <= STAGES
    for name in ("migrate", "chat", "worker"):
        assert services[name]["environment"].keys() <= specs().keys()
        settings = Settings.read(services[name]["environment"])
        assert float(services[name]["stop_grace_period"].removesuffix("s")) > settings.drain_timeout
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
    assert [name for name, each in services.items() if "healthcheck" not in each] == ["migrate"]
    published = [port for each in services.values() for port in each.get("ports", [])]
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


# No package carries Skaffold's schema, so what we use of v4 is written down here.
SKAFFOLD_KEYS = {
    "": {"apiVersion", "kind", "metadata", "requires", "build", "manifests", "deploy", "portForward", "profiles"},
    "build": {"artifacts", "local"},
    "manifests": {"kustomize"},
    "deploy": {"kubectl", "helm"},
    "portForward[]": {"resourceType", "resourceName", "port", "localPort"},
    "build.artifacts[]": {"image", "docker", "sync"},
    "build.artifacts[].docker": {"dockerfile", "target"},
    "build.artifacts[].sync": {"manual", "hooks"},
    "build.artifacts[].sync.manual[]": {"src", "dest", "strip"},
    "deploy.helm": {"releases", "hooks"},
    "deploy.helm.releases[]": {"name", "chartPath", "valuesFiles", "setValueTemplates"},
    "profiles[]": {"name", "activation", "patches"},
    "profiles[].patches[]": {"op", "path", "value"},
}


def unknown_keys(node, path=""):
    if isinstance(node, list):
        return [key for each in node for key in unknown_keys(each, f"{path}[]")]
    if not isinstance(node, dict):
        return []
    own = [f"{path}.{key}" for key in node if path in SKAFFOLD_KEYS and key not in SKAFFOLD_KEYS[path]]
    return own + [key for name, each in node.items() for key in unknown_keys(each, f"{path}.{name}".lstrip("."))]


def test_skaffold_names_what_is_there():
    images, services = set(), {"chat-internal", "chat-public"}
    services |= {each["metadata"]["name"] for each in of_kind(DEVELOPMENT_SERVERS, "Service")}
    for config in SKAFFOLD:
        assert config["apiVersion"].startswith("skaffold/v4")
        assert unknown_keys(config) == []
        for artifact in config["build"]["artifacts"]:
            images.add(artifact["image"])
            assert artifact["docker"]["target"] in STAGES
            assert (ROOT / artifact["docker"]["dockerfile"]).is_file()
            for sync in artifact.get("sync", {}).get("manual", []):
                assert [*ROOT.glob(sync["src"])]
                assert f"ln -s /opt/venv/lib/python3*/site-packages/app {sync['dest']}" in DOCKERFILE
        for path in config.get("manifests", {}).get("kustomize", {}).get("paths", []):
            assert (ROOT / path / "kustomization.yaml").is_file()
        for release in config["deploy"].get("helm", {}).get("releases", []):
            assert (ROOT / release["chartPath"] / "Chart.yaml").is_file()
            assert [file for file in release["valuesFiles"] if not (ROOT / file).is_file()] == []
        assert {each["resourceName"] for each in config["portForward"]} <= services
    named = set(re.findall(r"IMAGE_REPO_(\w+)", json.dumps(SKAFFOLD)))
    assert named == {image.replace("-", "_") for image in images}
    deployed = {
        container["image"]
        for _, template in pod_templates(DEVELOPMENT_SERVERS)
        for container in containers(template)
    }
    assert {image for image in deployed if image.startswith("chat-")} <= images


@pytest.mark.parametrize("config", SKAFFOLD, ids=[each["metadata"]["name"] for each in SKAFFOLD])
def test_the_patches_of_skaffold_apply(config):
    for patch in [patch for profile in config.get("profiles", []) for patch in profile["patches"]]:
        *parents, last = patch["path"].split("/")[1:]
        node = config
        for key in parents:
            node = node[int(key)] if isinstance(node, list) else node[key]
        assert (last in node) == (patch["op"] in {"remove", "replace"}), patch


def test_the_development_servers_are_what_the_values_name():
    services = {
        each["metadata"]["name"]: each["spec"]["ports"][0]["port"]
        for each in of_kind(DEVELOPMENT_SERVERS, "Service")
    }
    assert services == {"postgres": 5432, "redis": 6379, "master": 3000}
    values = DEVELOPMENT.read_text()
    assert "redis://redis:6379/0" in values
    assert "http://master:3000/" in values
    keys = set(re.findall(r"existingSecret: chat-development, key: (\w+)", values))
    kustomization = yaml.safe_load((ROOT / "k8s/kustomization.yaml").read_text())
    literals = {each.split("=")[0] for each in kustomization["secretGenerator"][0]["literals"]}
    assert keys <= literals


def test_the_development_servers_are_restricted_too():
    for name, template in pod_templates(DEVELOPMENT_SERVERS):
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True, name
        for container in containers(template):
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert container.keys() >= {"readinessProbe", "livenessProbe", "resources"}, name

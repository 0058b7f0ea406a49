"""The values and the commands of docs/deploy-kubernetes.md, docs/troubleshooting.md and the chart's own README."""

import re

import pages
import pytest
import yaml
from charts import DEVELOPMENT, FULL, MINIMAL, ROOT, of_kind, render

pytestmark = pytest.mark.chart

PAGES = ["docs/deploy-kubernetes.md", "docs/troubleshooting.md", "helm/chat-service/README.md"]
WITH_VALUES = ["docs/deploy-kubernetes.md", "helm/chat-service/README.md"]


@pytest.mark.parametrize("page", WITH_VALUES)
def test_the_values_of_the_page_make_all_that_it_says(page, tmp_path):
    first, *more = pages.code(page, "yaml")
    (tmp_path / "values.yaml").write_text(first)
    manifests = render(tmp_path / "values.yaml")
    kinds = {each["kind"] for each in manifests}
    assert {"Deployment", "Service", "Job", "Ingress", "NetworkPolicy"} <= kinds
    names = {each["metadata"]["name"] for each in of_kind(manifests, "Deployment")}
    assert names == {"chat-chat-service-server", "chat-chat-service-worker"}
    for text in more:
        (tmp_path / "more.yaml").write_text(yaml.safe_dump({**yaml.safe_load(first), **yaml.safe_load(text)}))
        kinds = {each["kind"] for each in render(tmp_path / "more.yaml")}
        assert {"ServiceMonitor", "PrometheusRule", "ConfigMap"} <= kinds


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_name_what_the_chart_makes(page):
    made = {
        f"{each['kind'].lower()}/{each['metadata']['name']}": each for each in [*render(FULL), *render(MINIMAL)]
    }
    named = re.findall(r"\s((?:service|deployment|job)/chat-[\w-]+)(?: (\d+))?", pages.page(page))
    for name, port in named:
        assert name in made, name
        if port and name.startswith("service/"):
            assert int(port) in {each["port"] for each in made[name]["spec"]["ports"]}
    assert named or page == "docs/deploy-kubernetes.md"


def test_the_cluster_of_ones_own_has_its_files():
    text = pages.page("docs/deploy-kubernetes.md")
    assert "k8s/kind.yaml" in text
    assert (ROOT / "k8s" / "kind.yaml").exists()
    assert DEVELOPMENT.exists()
    documents = yaml.safe_load_all((ROOT / "skaffold.yaml").read_text())
    profiles = {each["name"] for document in documents for each in document.get("profiles", [])}
    assert set(re.findall(r"skaffold run -p (\w+)", text)) <= profiles

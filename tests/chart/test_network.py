"""What the policies let through, worked out as Kubernetes does: denied unless some policy of the pod allows it."""

import pytest
from charts import FULL, MINIMAL, of_kind, pod_templates, render, selects

pytestmark = pytest.mark.chart

NAMESPACES = ("shop", "monitoring", "kube-system", "elsewhere")
STRANGER = {"app.kubernetes.io/name": "stranger"}
MASTER = {"app.kubernetes.io/name": "master"}
CHAT = {"app.kubernetes.io/name": "chat-service", "app.kubernetes.io/instance": "chat"}
SERVER = CHAT | {"app.kubernetes.io/component": "server"}
WEBHOOKS = ('settings.WEBHOOK_URL="http://master:3000/hook"', 'secrets.WEBHOOK_SECRET={"value":"hush"}')


def matches(peer, labels, namespace):
    """Tell whether a pod in a namespace is a peer; no namespaceSelector means the policy's own."""
    assert peer.keys() <= {"podSelector", "namespaceSelector"}
    if "namespaceSelector" in peer:
        wanted = peer["namespaceSelector"].get("matchLabels", {})
        if not selects(wanted, {"kubernetes.io/metadata.name": namespace}):
            return False
    elif namespace != "shop":
        return False
    return selects(peer.get("podSelector", {}).get("matchLabels", {}), labels)


def allowed(manifests, pod, direction, port, peer, namespace):
    """Tell whether a pod of the release may take from (ingress) or connect to (egress) a peer at a port."""
    side = {"Ingress": "from", "Egress": "to"}[direction]
    policies = [
        each["spec"]
        for each in of_kind(manifests, "NetworkPolicy")
        if selects(each["spec"]["podSelector"]["matchLabels"], pod) and direction in each["spec"]["policyTypes"]
    ]
    assert policies, "no policy selects the pod, so everything is allowed"
    rules = [rule for policy in policies for rule in policy.get(direction.lower(), [])]
    return any(
        port in [each["port"] for each in rule["ports"]]
        and (not rule.get(side) or any(matches(each, peer, namespace) for each in rule[side]))
        for rule in rules
    )


@pytest.fixture(scope="module")
def manifests():
    return render(MINIMAL, *WEBHOOKS)


def test_every_pod_of_the_release_is_under_the_default_deny(manifests):
    (deny,) = [each for each in of_kind(manifests, "NetworkPolicy") if each["metadata"]["name"].endswith("deny")]
    assert deny["spec"].keys() == {"podSelector", "policyTypes"}
    assert deny["spec"]["policyTypes"] == ["Ingress", "Egress"]
    selector = deny["spec"]["podSelector"]["matchLabels"]
    names = [
        name for name, template in pod_templates(manifests) if selects(selector, template["metadata"]["labels"])
    ]
    assert sorted(name.rsplit("-", 1)[1] for name in names) == ["check", "migrate", "server", "test", "worker"]


def test_rest_is_for_the_master_alone(manifests):
    def may(labels, namespace):
        return allowed(manifests, SERVER, "Ingress", 4000, labels, namespace)

    assert may(MASTER, "shop")
    assert [namespace for namespace in NAMESPACES if may(STRANGER, namespace)] == []
    assert [namespace for namespace in NAMESPACES if may(CHAT, namespace)] == []
    assert not may(MASTER, "elsewhere")


def test_a_master_in_another_namespace_is_let_in_by_its_selectors():
    manifests = render(FULL)
    peers = [(MASTER, "shop"), (MASTER, "elsewhere"), (STRANGER, "shop"), (STRANGER, "monitoring")]
    assert [each for each in peers if allowed(manifests, SERVER, "Ingress", 4000, *each)] == peers[:1]


def test_sockets_are_for_everybody_and_from_pod_to_pod(manifests):
    for namespace in NAMESPACES:
        assert allowed(manifests, SERVER, "Ingress", 4001, STRANGER, namespace)
    assert allowed(manifests, SERVER, "Egress", 4001, SERVER, "shop")
    assert not allowed(manifests, SERVER, "Egress", 4001, STRANGER, "shop")
    assert allowed(manifests, CHAT | {"app.kubernetes.io/component": "test"}, "Egress", 4001, SERVER, "shop")


@pytest.mark.parametrize(("component", "port"), [("server", 9090), ("worker", 4002)])
def test_metrics_are_for_the_scraper_alone(manifests, component, port):
    pod = CHAT | {"app.kubernetes.io/component": component}
    assert allowed(manifests, pod, "Ingress", port, STRANGER, "monitoring")
    assert not allowed(manifests, pod, "Ingress", port, STRANGER, "shop")
    assert not allowed(manifests, pod, "Ingress", port, MASTER, "shop")


@pytest.mark.parametrize(
    ("component", "ports"),
    [
        ("server", {53, 5432, 6379, 4317, 4318}),
        ("worker", {53, 5432, 6379, 4317, 4318, 80, 443, 3000}),
        ("migrate", {53, 5432}),
        ("test", {53}),
        ("config-check", set()),
    ],
)
def test_out_they_go_to_what_they_need(manifests, component, ports):
    pod = CHAT | {"app.kubernetes.io/component": component}
    every = [22, 53, 80, 443, 3000, 3306, 4000, 4317, 4318, 5432, 6379, 8080]
    reached = {port for port in every if allowed(manifests, pod, "Egress", port, STRANGER, "kube-system")}
    assert reached == ports
    assert not allowed(manifests, pod, "Egress", 53, STRANGER, "elsewhere")


def test_without_policies_there_is_none():
    assert of_kind(render(MINIMAL, "networkPolicy.enabled=false"), "NetworkPolicy") == []

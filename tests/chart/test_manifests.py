import pytest
from charts import (
    CHART,
    DEVELOPMENT,
    FULL,
    MINIMAL,
    containers,
    environment,
    helm,
    of_kind,
    pod_templates,
    render,
    selects,
    the,
)

pytestmark = pytest.mark.chart

BOTH = pytest.mark.parametrize("values", [MINIMAL, FULL], ids=["minimal", "full"])
WEBHOOKS = ('settings.WEBHOOK_URL="https://shop.example.com/hook"', 'secrets.WEBHOOK_SECRET={"value":"hush"}')


def templates(values, *more):
    return dict(pod_templates(render(values, *more)))


def test_what_is_there_without_any_switch():
    kinds = sorted(each["kind"] for each in render())
    assert kinds == [
        "Deployment",
        "Job",
        "Job",
        *["NetworkPolicy"] * 4,
        "Pod",
        "PodDisruptionBudget",
        "Secret",
        "Secret",
        "Service",
        "Service",
        "ServiceAccount",
    ]


def test_a_worker_is_there_where_there_are_webhooks():
    assert [name for name in templates(MINIMAL) if name.endswith("worker")] == []
    manifests = render(MINIMAL, *WEBHOOKS)
    workers = [each["kind"] for each in manifests if each["metadata"]["name"].endswith("worker")]
    assert sorted(workers) == ["Deployment", "NetworkPolicy", "PodDisruptionBudget"]
    assert containers(the(manifests, "Deployment", "worker")["spec"]["template"])[0]["args"] == ["worker"]


@BOTH
def test_every_selector_finds_the_pods_that_it_means(values):
    manifests = render(values)
    labels = {name: template["metadata"]["labels"] for name, template in pod_templates(manifests)}

    def found(selector):
        return {
            name.removeprefix("chat-chat-service-") for name, each in labels.items() if selects(selector, each)
        }

    for each in of_kind(manifests, "Deployment"):
        assert found(each["spec"]["selector"]["matchLabels"]) == {each["metadata"]["name"].rsplit("-", 1)[1]}
    for each in of_kind(manifests, "PodDisruptionBudget"):
        assert found(each["spec"]["selector"]["matchLabels"]) == {each["metadata"]["name"].rsplit("-", 1)[1]}
    for name in ("internal", "public"):
        assert found(the(manifests, "Service", name)["spec"]["selector"]) == {"server"}
    for name, template in pod_templates(manifests):
        own = [term["podAffinityTerm"]["labelSelector"]["matchLabels"] for term in anti_affinity(template)]
        own += [
            each["labelSelector"]["matchLabels"] for each in template["spec"].get("topologySpreadConstraints", [])
        ]
        assert len(own) == (2 if name.endswith(("server", "worker")) else 0)
        assert [selector for selector in own if not selects(selector, labels[name])] == []


def anti_affinity(template):
    affinity = template["spec"].get("affinity", {}).get("podAntiAffinity", {})
    return affinity.get("preferredDuringSchedulingIgnoredDuringExecution", [])


@BOTH
def test_every_named_port_is_one_of_the_container(values):
    manifests = render(values)
    for _, template in pod_templates(manifests):
        for container in containers(template):
            ports = {port["name"] for port in container.get("ports", [])}
            probes = [container[key] for key in container if key.endswith("Probe")]
            assert {probe["httpGet"]["port"] for probe in probes} <= ports
    templates_ = dict(pod_templates(manifests))
    for service in of_kind(manifests, "Service"):
        for template in templates_.values():
            if (
                selects(service["spec"]["selector"], template["metadata"]["labels"])
                and "ports" in containers(template)[0]
            ):
                named = {port["name"] for port in containers(template)[0]["ports"]}
                assert {port["targetPort"] for port in service["spec"]["ports"]} <= named


@BOTH
def test_the_public_service_reaches_the_sockets_alone(values):
    manifests = render(values)
    ports = {port["name"]: port["containerPort"] for port in containers(server(manifests))[0]["ports"]}
    public, internal = the(manifests, "Service", "public"), the(manifests, "Service", "internal")
    assert [(port["port"], ports[port["targetPort"]]) for port in public["spec"]["ports"]] == [(4001, 4001)]
    assert [(port["port"], ports[port["targetPort"]]) for port in internal["spec"]["ports"]] == [(4000, 4000)]
    assert "sessionAffinity" not in public["spec"]


def server(manifests):
    return the(manifests, "Deployment", "server")["spec"]["template"]


def test_the_ingress_and_the_route_publish_the_socket_path_alone_for_ever():
    manifests = render(FULL)
    ingress, route = the(manifests, "Ingress", ""), the(manifests, "HTTPRoute", "")
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    assert path["path"] == "/socket.io/"
    assert path["backend"]["service"] == {"name": "chat-chat-service-public", "port": {"name": "ws"}}
    assert ingress["metadata"]["annotations"]["alb.ingress.kubernetes.io/healthcheck-path"] == "/health/ready"
    assert int(ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"]) >= 3600
    (rule,) = route["spec"]["rules"]
    assert [match["path"] for match in rule["matches"]] == [{"type": "PathPrefix", "value": "/socket.io/"}]
    assert rule["backendRefs"] == [{"name": "chat-chat-service-public", "port": 4001}]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}


@BOTH
def test_every_pod_is_restricted_and_without_a_token(values):
    for name, template in pod_templates(render(values)):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers(template):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert "memory" in container["resources"]["limits"], name


def test_every_deployment_is_probed_and_liveness_depends_on_nothing():
    for deployment in of_kind(render(FULL), "Deployment"):
        container = containers(deployment["spec"]["template"])[0]
        paths = {key: container[f"{key}Probe"]["httpGet"]["path"] for key in ("startup", "liveness", "readiness")}
        assert paths == {"startup": "/health/live", "liveness": "/health/live", "readiness": "/health/ready"}
    assert containers(server(render()))[0]["readinessProbe"]["httpGet"]["port"] == "ws"


@pytest.mark.parametrize(
    ("drain", "seconds"),
    [('"20s"', 20), ('"500ms"', 1), ('"1.5m"', 90), ('"2m"', 120), ("45", 45), ('"0.001h"', 4)],
)
def test_the_grace_period_follows_from_the_drain(drain, seconds):
    manifests = render(MINIMAL, f"settings.DRAIN_TIMEOUT={drain}", "server.preStopSeconds=7", *WEBHOOKS)
    spec = server(manifests)["spec"]
    assert spec["containers"][0]["lifecycle"]["preStop"] == {"sleep": {"seconds": 7}}
    assert spec["terminationGracePeriodSeconds"] == 7 + seconds + 10
    worker = the(manifests, "Deployment", "worker")["spec"]["template"]["spec"]
    assert worker["terminationGracePeriodSeconds"] == seconds + 10


def test_whoever_scales_decides_how_many_pods_there_are():
    manifests = render(FULL)
    assert [
        each["metadata"]["name"] for each in of_kind(manifests, "Deployment") if "replicas" in each["spec"]
    ] == []
    assert all(each["spec"]["replicas"] == 2 for each in of_kind(render(MINIMAL, *WEBHOOKS), "Deployment"))
    scaled = {each["spec"]["scaleTargetRef"]["name"] for kind in SCALERS for each in of_kind(manifests, kind)}
    assert scaled == {each["metadata"]["name"] for each in of_kind(manifests, "Deployment")}
    hpa = the(manifests, "HorizontalPodAutoscaler", "server")["spec"]
    assert [metric["type"] for metric in hpa["metrics"]] == ["Resource", "Pods"]
    assert hpa["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 600
    plain = the(render(MINIMAL, "server.autoscaling.enabled=true"), "HorizontalPodAutoscaler", "server")["spec"]
    assert [metric["type"] for metric in plain["metrics"]] == ["Resource"]


SCALERS = ("HorizontalPodAutoscaler", "ScaledObject")


def test_the_jobs_run_before_the_rollout_on_what_is_there_by_then():
    manifests = render()
    hooks = sorted(
        (
            int(each["metadata"]["annotations"].get("helm.sh/hook-weight", 0)),
            each["kind"],
            each["metadata"]["name"],
        )
        for each in manifests
        if "pre-install" in each["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    )
    assert [(kind, name.removeprefix("chat-chat-service-")) for _, kind, name in hooks] == [
        ("NetworkPolicy", "migrate"),
        ("Secret", "hooks"),
        ("Job", "config-check"),
        ("Job", "migrate"),
    ]
    for job in of_kind(manifests, "Job"):
        template = job["spec"]["template"]
        assert template["spec"]["serviceAccountName"] == "default"
        for variable in environment(template).values():
            if "valueFrom" in variable:
                assert variable["valueFrom"]["secretKeyRef"]["name"] == "chat-chat-service-hooks"
    assert [containers(job["spec"]["template"])[0]["args"] for job in of_kind(manifests, "Job")] == [
        ["config", "--check"],
        ["migrate"],
    ]


def test_the_jobs_can_be_switched_off():
    off = ("migration.enabled=false", "configCheck.enabled=false")
    manifests = render(MINIMAL, *off)
    assert [each for each in manifests if "pre-install" in str(each["metadata"].get("annotations"))] == []
    assert len(of_kind(render(MINIMAL, off[0]), "Job")) == 1


def test_a_changed_secret_rolls_the_pods_and_a_new_version_of_the_chart_alone_does_not():
    def checksum(*more):
        return server(render(MINIMAL, *more))["metadata"]["annotations"]["checksum/secret"]

    assert checksum() == checksum("server.replicas=3")
    assert checksum() != checksum('secrets.AUTH_JWT_SECRET.value="another"')
    assert not any(
        key.startswith(("helm.sh", "app.kubernetes.io/version")) for key in server(render())["metadata"]["labels"]
    )


def test_extras_reach_the_pods():
    manifests = render(FULL)
    names = [each["name"] for each in server(manifests)["spec"]["containers"]]
    assert names == ["server", "log-shipper"]
    for name, template in pod_templates(manifests):
        assert [volume["name"] for volume in template["spec"]["volumes"]] == ["company"], name
        if not name.endswith("-test"):
            assert containers(template)[0]["volumeMounts"][0]["mountPath"] == "/etc/company"
            assert environment(template)["SSL_CERT_FILE"]["value"] == "/etc/company/ca.crt"


@pytest.mark.parametrize("values", [MINIMAL, FULL, DEVELOPMENT], ids=["minimal", "full", "development"])
def test_no_name_is_too_long(values):
    long = "a" * 53
    manifests = render(values, f'fullnameOverride="{long[:48]}"')
    assert max(len(each["metadata"]["name"]) for each in manifests) <= 63


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (MINIMAL, ["service/chat-chat-service-public 4001", "ALLOWED_ORIGINS is empty", "there is no worker"]),
        (FULL, ["https://chat.example.com", "http://chat-chat-service-internal.shop.svc:4000"]),
    ],
    ids=["minimal", "full"],
)
def test_the_notes_say_what_to_do_next(values, told):
    said = helm(
        *("install", "chat", str(CHART), "--dry-run=client", "--namespace", "shop", "--values", str(values))
    )
    notes = said.split("\nNOTES:\n")[1]
    assert [each for each in [*told, "helm -n shop test chat --logs"] if each not in notes] == []

import json
import re

import pytest
from charts import CHART, DEVELOPMENT, FULL, MINIMAL, HelmError, environment, of_kind, pod_templates, render, the

from app.config.settings import Settings, specs

pytestmark = pytest.mark.chart

SECRETS = {name for name, spec in specs().items() if spec.file_form}
SETTINGS = specs().keys() - SECRETS
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
EXISTING = '{"existingSecret":"chat","key":"x"}'
# One value of each setting that is not its default.
SAMPLES = {
    "AUTH_JWT_ISSUER": "shop",
    "AUTH_JWT_AUDIENCE": "chat",
    "WEBHOOK_URL": "https://shop.example.com/hook",
    "WEBHOOK_RETRY_SCHEDULE": "1s, 10s",
    "WEBHOOK_TIMEOUT": "5s",
    "HTTP_HOST": "::",
    "HTTP_PORT": 5000,
    "WS_HOST": "::",
    "WS_PORT": 5001,
    "WORKER_PORT": 5002,
    "METRICS_PORT": 5003,
    "ALLOWED_ORIGINS": "https://app.example.com",
    "DRAIN_TIMEOUT": "30s",
    "EVENTS_RETENTION_DAYS": 7,
    "LOG_LEVEL": "DEBUG",
    "LOG_FORMAT": "text",
    "LARGE_GROUP": 50,
    "MAX_UNSENT_BYTES": 1_073_741_824,
}


def sample(name):
    if name in SAMPLES:
        return SAMPLES[name]
    default = specs()[name].default
    return int(default) + 1 if default.isdigit() else "1/s,2"


def server_environment(*more, values=MINIMAL):
    return environment(the(render(values, *more), "Deployment", "server")["spec"]["template"])


def test_the_chart_knows_every_setting_and_every_secret_and_no_other():
    assert SCHEMA["properties"]["settings"]["properties"].keys() == SETTINGS
    assert SCHEMA["properties"]["secrets"]["properties"].keys() == SECRETS


def test_every_setting_reaches_every_process_as_it_was_written():
    samples = {name: sample(name) for name in SETTINGS}
    sets = [f"settings.{name}={json.dumps(value)}" for name, value in samples.items()]
    manifests = render(MINIMAL, *sets, f"secrets.WEBHOOK_SECRET={EXISTING}")
    for name, template in pod_templates(manifests):
        if not name.endswith("-test"):
            found = {key: each["value"] for key, each in environment(template).items() if "value" in each}
            assert found == {key: str(value) for key, value in samples.items()}
            # The service takes them as they are.
            Settings.read({**found, **dict.fromkeys(SECRETS - {"DATABASE_URL", "REDIS_URL"}, "s"), **URLS})


URLS = {"DATABASE_URL": "postgresql://chat:x@db/chat", "REDIS_URL": "redis://redis/0"}


@pytest.mark.parametrize("name", ["MINIMAL", "FULL", "DEVELOPMENT"])
def test_no_container_gets_a_setting_that_does_not_exist(name):
    for pod, template in pod_templates(render(globals()[name])):
        if pod.endswith("-test"):
            continue
        variables = environment(template)
        parts = set(re.findall(r"\$\((\w+)\)", " ".join(each.get("value", "") for each in variables.values())))
        assert parts <= variables.keys()
        extra = {"SSL_CERT_FILE"} if name == "FULL" else set()
        unknown = variables.keys() - specs().keys() - parts - extra
        assert [each for each in unknown if not each.startswith("OTEL_")] == []


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_every_secret_comes_by_value_or_from_a_secret_that_is_there(name):
    urls = {"DATABASE_URL": "postgresql://a:b@c/d", "REDIS_URL": "redis://c/0"}
    value = urls.get(name, "a secret: with $igns")
    by_value = render(MINIMAL, f"secrets.{name}={json.dumps({'value': value})}")
    own = the(by_value, "Secret", "chat-service")
    assert own["data"] == the(by_value, "Secret", "hooks")["data"]
    reference = environment(the(by_value, "Deployment", "server")["spec"]["template"])[name]["valueFrom"]
    assert reference == {"secretKeyRef": {"name": own["metadata"]["name"], "key": name}}

    existing = render(FULL, f"secrets.{name}={EXISTING}", *NO_PARTS.get(name, ()))
    reference = environment(the(existing, "Deployment", "server")["spec"]["template"])[name]["valueFrom"]
    assert reference == {"secretKeyRef": {"name": "chat", "key": "x"}}
    assert [each for each in of_kind(existing, "Secret") if name in each["data"]] == []


NO_PARTS = {
    "DATABASE_URL": [f"database.{part}=null" for part in ("host", "port", "user", "password", "name")],
    "REDIS_URL": [f"redis.{part}=null" for part in ("host", "password")],
}


def expanded(variables, name):
    """Put `$(VARIABLE)` together as the kubelet does: only from what stands before."""
    before = list(variables)[: list(variables).index(name)]
    known = {each: f"<{each}>" for each in before}
    return re.sub(r"\$\((\w+)\)", lambda match: known[match[1]], variables[name]["value"])


def test_postgres_and_redis_come_in_parts_as_well():
    variables = server_environment(values=FULL)
    assert expanded(variables, "DATABASE_URL") == (
        "postgresql://<DATABASE_USER>:<DATABASE_PASSWORD>@<DATABASE_HOST>:<DATABASE_PORT>/<DATABASE_NAME>?sslmode=require"
    )
    assert variables["DATABASE_USER"]["valueFrom"]["secretKeyRef"] == {"name": "chat-db-app", "key": "username"}
    assert expanded(variables, "REDIS_URL") == "rediss://:<REDIS_PASSWORD>@<REDIS_HOST>:6379/0"
    variables = server_environment(
        'redis.user={"value":"chat"}', "redis.tls=false", "redis.database=3", values=FULL
    )
    assert expanded(variables, "REDIS_URL") == "redis://<REDIS_USER>:<REDIS_PASSWORD>@<REDIS_HOST>:6379/3"


def test_secrets_as_files_are_given_by_extra_variables():
    files = [{"name": f"{name}_FILE", "value": f"/secrets/{name}"} for name in sorted(SECRETS)]
    nothing = [f"secrets.{name}=null" for name in SECRETS]
    manifests = render(MINIMAL, *nothing, f"extraEnv={json.dumps(files)}")
    assert of_kind(manifests, "Secret") == []
    assert environment(the(manifests, "Deployment", "server")["spec"]["template"]).keys() >= {
        each["name"] for each in files
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # What the schema refuses.
        ('settings.FROBNICATE="1"', "FROBNICATE"),
        ("settings.HTTP_PORT=70000", "HTTP_PORT"),
        ('settings.HTTP_PORT="4000"', "HTTP_PORT"),
        ("settings.METRICS_PORT=null", "METRICS_PORT"),
        ("settings.AUTH_JWT_ISSUER=null", "AUTH_JWT_ISSUER"),
        ('settings.ALLOWED_ORIGINS="*"', "ALLOWED_ORIGINS"),
        ('settings.DRAIN_TIMEOUT="soon"', "DRAIN_TIMEOUT"),
        ('settings.RATE_LIMIT_SEND="often"', "RATE_LIMIT_SEND"),
        ('settings.AUTH_JWT_SECRET="hush"', "AUTH_JWT_SECRET"),
        ("frobnicate=1", "frobnicate"),
        ("server.replica=3", "replica"),
        ('server.replicas="3"', "replicas"),
        ("ingress.enabled=true", "host"),
        ("httpRoute.enabled=true", "parentRefs"),
        ("worker.keda.enabled=true", "prometheusAddress"),
        ('image.digest="latest"', "digest"),
        # Secrets that contradict themselves or each other.
        (f"secrets.AUTH_JWT_SECRET.existingSecret={json.dumps('chat')}", "AUTH_JWT_SECRET"),
        ('secrets.AUTH_JWT_SECRET={"existingSecret":"chat"}', "AUTH_JWT_SECRET"),
        ('secrets.AUTH_JWT_SECRET={"value":""}', "AUTH_JWT_SECRET"),
        ("secrets.AUTH_JWT_SECRET=null", "secrets.AUTH_JWT_SECRET is required"),
        ("secrets.INTERNAL_API_SECRET=null", "secrets.INTERNAL_API_SECRET is required"),
        ("secrets.DATABASE_URL=null", "secrets.DATABASE_URL is required, or its parts in database"),
        ("secrets.REDIS_URL=null", "secrets.REDIS_URL is required, or its parts in redis"),
        ('database.host={"value":"db"}', "secrets.DATABASE_URL and database contradict each other"),
        ('redis.password={"value":"x"}', "secrets.REDIS_URL and redis contradict each other"),
        ('settings.WEBHOOK_URL="http://master/hook"', "secrets.WEBHOOK_SECRET is required"),
        ("settings.METRICS_PORT=4000", "must differ"),
        ("networkPolicy.master=[]", "networkPolicy.master is required"),
    ],
)
def test_what_cannot_work_is_refused_by_its_name(change, message):
    with pytest.raises(HelmError, match=re.escape(message)):
        render(MINIMAL, change)


@pytest.mark.parametrize("part", ["user", "password", "name"])
def test_a_missing_part_is_named(part):
    with pytest.raises(HelmError, match=rf"database\.{part} is required"):
        render(FULL, f"database.{part}=null")


def test_the_development_values_name_what_stands_in_k8s():
    variables = server_environment(values=DEVELOPMENT)
    names = {each["valueFrom"]["secretKeyRef"]["name"] for each in variables.values() if "valueFrom" in each}
    assert names == {"chat-development", "chat"}

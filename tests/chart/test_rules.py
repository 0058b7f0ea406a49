"""The alerts and the dashboard, by Prometheus' own tool."""

import json

import pytest
import yaml
from charts import CHART, FULL, render, run, the

pytestmark = pytest.mark.chart

DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text())
JOB = 'namespace="shop",job="chat-chat-service-metrics"'
# What shows nothing wrong, for an hour: a value and what it grows by each minute.
HEALTHY = {
    "chat_sockets": "100+0x60",
    "chat_database_up": "1+0x60",
    "chat_redis_up": "1+0x60",
    'chat_http_requests_total{status="200"}': "0+600x60",
    'chat_http_requests_total{status="500"}': "0+1x60",
    'chat_http_request_seconds_bucket{le="0.1"}': "0+600x60",
    'chat_http_request_seconds_bucket{le="+Inf"}': "0+600x60",
    'chat_delivery_seconds_bucket{le="0.1"}': "0+600x60",
    'chat_delivery_seconds_bucket{le="+Inf"}': "0+600x60",
    "chat_canary_failures_total": "0+0x60",
    "chat_gaps_repaired_total": "0+1x60",
    "chat_slow_consumers_total": "0+1x60",
    "chat_webhook_oldest_seconds": "2+0x60",
    "chat_webhook_dead_total": "0+0x60",
    "chat_webhook_breaker_open": "0+0x60",
    "chat_webhook_worker_missing": "0+0x60",
    'chat_loop_failures_total{loop="repair"}': "0+0x60",
}
# What each alert fires at, in place of the healthy series.
FIRES = {
    "ChatServiceMissing": {"chat_sockets": None},
    "ChatDatabaseDown": {"chat_database_up": "0+0x60"},
    "ChatRedisDown": {"chat_redis_up": "0+0x60"},
    "ChatRequestsFailing": {'chat_http_requests_total{status="500"}': "0+60x60"},
    "ChatRequestsSlow": {
        'chat_http_request_seconds_bucket{le="0.1"}': "0+500x60",
        'chat_http_request_seconds_bucket{le="2"}': "0+600x60",
    },
    "ChatDeliverySlow": {
        'chat_delivery_seconds_bucket{le="0.1"}': "0+500x60",
        'chat_delivery_seconds_bucket{le="2"}': "0+600x60",
    },
    "ChatCanaryFailing": {"chat_canary_failures_total": "0+1x60"},
    "ChatGapsRepaired": {"chat_gaps_repaired_total": "0+60x60"},
    "ChatSlowConsumers": {"chat_slow_consumers_total": "0+120x60"},
    "ChatSocketsNearLimit": {"chat_sockets": "40001+0x60"},
    "ChatWebhooksLate": {"chat_webhook_oldest_seconds": "301+0x60"},
    "ChatWebhooksDead": {"chat_webhook_dead_total": "0+1x60"},
    "ChatWebhookBreakerOpen": {"chat_webhook_breaker_open": "1+0x60"},
    "ChatWebhookWorkerMissing": {"chat_webhook_worker_missing": "1+0x60"},
    "ChatLoopFailing": {'chat_loop_failures_total{loop="repair"}': "0+1x60"},
}


@pytest.fixture
def rules(tmp_path):
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(the(render(FULL), "PrometheusRule", "")["spec"]))
    return file


def series(values):
    found = []
    for name, value in values.items():
        metric, _, labels = name.rstrip("}").partition("{")
        if value is not None:
            found.append({"series": f"{metric}{{{JOB},{labels}}}".replace(",}", "}"), "values": value})
    return found


def alerts_at(rules, values, firing):
    """Check by promtool which alert, and no other, fires after half an hour."""
    names = [rule["alert"] for rule in yaml.safe_load(rules.read_text())["groups"][0]["rules"]]
    assert set(names) == FIRES.keys()
    expected = [{"labels": f'{{alertname="{firing}"}}', "value": 1}] if firing else []
    test = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series(values),
                "promql_expr_test": [
                    {
                        "expr": 'sum by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": "30m",
                        "exp_samples": expected,
                    }
                ],
            }
        ],
    }
    file = rules.parent / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    run("promtool", "test", "rules", str(file))


def test_prometheus_takes_the_rules(rules):
    assert f"SUCCESS: {len(FIRES)} rules found" in run("promtool", "check", "rules", str(rules))


def test_all_is_quiet_while_nothing_is_wrong(rules):
    alerts_at(rules, HEALTHY, None)


@pytest.mark.parametrize("alert", FIRES)
def test_an_alert_fires_and_no_other(rules, alert):
    alerts_at(rules, HEALTHY | FIRES[alert], alert)


def test_prometheus_takes_every_query_of_the_dashboard(tmp_path):
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 20
    recorded = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    run("promtool", "check", "rules", "--lint=none", str(file))


def test_the_dashboard_is_handed_out_as_it_is():
    handed_out = the(render(FULL), "ConfigMap", "dashboard")["data"]["chat-service.json"]
    assert json.loads(handed_out) == DASHBOARD
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)

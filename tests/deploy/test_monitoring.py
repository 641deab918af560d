"""The alerts, the dashboard and the scalers read metrics that our servers really export."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from castmate.clients.base import Servers
from castmate.jobs.predictions import Outcome, State
from castmate.triton.metrics import TritonMetrics
from tests.deploy.test_kubernetes import built, of_kind
from tests.doubles import FlatClient
from tests.mcp_server.running import serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]

RULE_TESTS = Path(__file__).with_name("alerts_test.yaml")
SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
OF_OTHERS = {"up", "nv_gpu_utilization"}
WORDS = r"\b(?:castmate_\w+|nv_\w+|up)\b"


def queries() -> Iterator[str]:
    """Every PromQL expression of the fleet's manifests."""
    for rule in of_kind("fleet", "PrometheusRule"):
        for group in rule["spec"]["groups"]:
            yield from (alert["expr"] for alert in group["rules"])
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for scaled in of_kind("fleet", "ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            if trigger["type"] == "prometheus":
                yield trigger["metadata"]["query"]


def dashboard() -> Any:
    (found,) = [one for one in built("fleet") if one["metadata"]["name"] == "castmate-dashboard"]
    return json.loads(found["data"]["dashboard.json"])


class Kinds:
    """Triton's registry of metrics, as far as the names go."""

    HISTOGRAM, COUNTER, GAUGE = "histogram", "counter", "gauge"

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __call__(self, name: str, description: str, kind: str) -> None:
        plain = name.removesuffix("_total") if kind == "counter" else name
        self.names |= {plain + suffix for suffix in SUFFIXES[kind]}


class PbUtils:
    def __init__(self) -> None:
        self.MetricFamily = Kinds()


class Fleet(FlatClient):
    servers = Servers(usable=1, resting=0, ahead=0)


async def exported(tmp_path: Path) -> set[str]:
    """The names of all samples of a gateway and of Triton's model."""
    triton = PbUtils()
    TritonMetrics(triton, "0")
    async with serving(Fleet(), tmp_path / "data") as api:
        await api.final((await api.submit())["id"])
        page = (await api.http.get("/metrics")).text
    gateway = {
        family.name + suffix
        for family in text_string_to_metric_families(page)
        for suffix in SUFFIXES.get(family.type, [""])
    }
    return gateway | triton.MetricFamily.names


async def test_every_metric_that_is_read_is_exported(tmp_path: Path) -> None:
    read = {name for query in queries() for name in re.findall(WORDS, _bare(query))}
    assert len(read) > 15
    assert read - OF_OTHERS - await exported(tmp_path) == set()


def test_what_every_gateway_exports_alike_is_never_summed() -> None:
    shared = [query for query in queries() if "castmate_ledger_" in query]
    assert shared
    for query in shared:
        whole = len(re.findall(r"castmate_ledger_\w+", query))
        assert len(re.findall(r"max(?: by \(\w+\) )?\(castmate_ledger_\w+", query)) == whole, query


def test_the_values_of_labels_are_those_that_are_exported() -> None:
    known = {
        "outcome": {*Outcome, "delivered"},
        "state": {*State, "usable", "resting"},
        "client": {"triton"},
    }
    for query in queries():
        for label, value in re.findall(r'(\w+)!?="(\w+)"', query):
            assert value in known[label], query


def test_the_tests_of_the_rules_speak_of_alerts_that_there_are() -> None:
    (rule,) = of_kind("fleet", "PrometheusRule")
    alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
    summaries = {alert["alert"]: alert["annotations"]["summary"] for alert in alerts}
    tested = [
        case
        for test in yaml.safe_load(RULE_TESTS.read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    assert {case["alertname"] for case in tested} <= summaries.keys()
    assert all(alert["for"] and alert["labels"]["severity"] for alert in alerts)


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    places = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


def _bare(query: str) -> str:
    """Without what is matched, and the labels by which it is grouped."""
    return re.sub(r"\{[^}]*\}|by \([^)]*\)", "", query)

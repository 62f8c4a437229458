"""What is shipped beside the code refers only to what the code has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tools.configuration_table import README, with_table
from tools.metrics_page import catalogue
from worker.cli.app import COMMANDS
from worker.config import load_settings

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "lstm-worker.json"
KNOWN = {name for name, _, _, _ in catalogue()}
SERIES = re.compile(r"lstm_worker_[a-z_]+")


def known(series: str) -> bool:
    return series in KNOWN or re.sub(r"_(bucket|sum|count)$", "", series) in KNOWN


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def rules() -> list[dict]:
    groups = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def compose() -> dict:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))


def test_every_metric_of_a_panel_exists():
    used = {series for expression in expressions() for series in SERIES.findall(expression)}
    assert len(used) > 25
    assert not {series for series in used if not known(series)}


def test_every_metric_of_an_alert_exists_and_every_alert_says_what_to_do():
    for rule in rules():
        assert not {series for series in SERIES.findall(rule["expr"]) if not known(series)}, rule["alert"]
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook"]


def test_every_panel_shows_only_the_workers_that_are_chosen():
    for expression in expressions():
        series = re.findall(r"\b(?:lstm_worker|process)_[a-z_]+", expression)
        assert expression.count('instance=~"$instance"') == len(series), expression


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool comes with Prometheus only; the tests above parse the same files as YAML and JSON",
)
@pytest.mark.parametrize("source", ["alerts", "panels"])
def test_prometheus_can_parse_what_is_shipped(source, tmp_path):
    file = ROOT / "deploy" / "alerts.yml"
    if source == "panels":
        file = tmp_path / "panels.yml"
        intervals = [expression.replace("$__rate_interval", "1m") for expression in expressions()]
        panels = [{"record": f"panel_{i}", "expr": expression} for i, expression in enumerate(intervals)]
        file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": panels}]}), "utf-8")
    checked = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_vectors_are_matched_with_vectors():
    """Prometheus refuses `0.1 * ignoring (reason) other`: a number has no labels to match."""
    matching = r"\d\s*[-+*/]\s*(ignoring|on)\b"
    assert not [rule["alert"] for rule in rules() if re.search(matching, rule["expr"])]


def test_panels_do_not_overlap_and_have_unique_numbers():
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)


def test_compose_services_wait_for_services_that_exist_and_mount_files_that_exist():
    services = compose()["services"]
    assert {"kafka", "topics", "worker-0", "worker-1", "producer", "prometheus", "grafana"} <= set(services)
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in compose()["volumes"], name


@pytest.mark.parametrize("service", ["topics", "producer"])
def test_compose_commands_are_commands_of_the_program(service):
    assert compose()["services"][service]["command"][0] in COMMANDS


def test_the_two_workers_are_different_static_members_with_their_own_state():
    first, second = compose()["services"]["worker-0"], compose()["services"]["worker-1"]
    assert first["environment"] != second["environment"]
    assert first["volumes"][1] != second["volumes"][1]
    assert first["ports"] != second["ports"]


def test_prometheus_scrapes_both_workers_where_they_listen():
    scrape = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text("utf-8"))["scrape_configs"][0]
    port = load_settings(ROOT / "deploy" / "worker.toml").http.port
    assert scrape["static_configs"][0]["targets"] == [f"worker-0:{port}", f"worker-1:{port}"]


def test_the_shipped_configuration_is_valid():
    assert load_settings(ROOT / "deploy" / "worker.toml").worker.guarantee == "exactly_once"


def test_kubernetes_manifests_parse_and_name_each_pod_as_a_static_member():
    documents = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "lstm-worker.yml").read_text("utf-8")))
    assert {document["kind"] for document in documents} == {
        "ConfigMap",
        "Service",
        "PodDisruptionBudget",
        "StatefulSet",
    }
    stateful = next(document for document in documents if document["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    assert stateful["containers"][0]["env"][0]["name"] == "LSTM_WORKER__KAFKA__GROUP_INSTANCE_ID"
    grace_ms = load_settings(ROOT / "deploy" / "worker.toml").kafka.transaction_timeout_ms + 15_000
    assert stateful["terminationGracePeriodSeconds"] * 1000 >= grace_ms


def test_the_readme_holds_the_settings_as_they_are():
    text = README.read_text("utf-8")
    assert with_table(text) == text, "run `python -m tools.configuration_table`"

"""Tests that the dashboard and the alerts use only existing metrics; it shows all of them."""

import json
import re
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families

from .conftest import HIDDEN

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "hsoftmax.json").read_text())
(RULES,) = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text())["groups"]
ALERTS = [rule["expr"] for rule in RULES["rules"]]
EXPRESSIONS = [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])
]
NAMED = set(re.findall(r"\b(?:hsoftmax|process)_[a-z_]+", " ".join(EXPRESSIONS)))


def exported(client) -> dict[str, set[str]]:
    """Return the sample names that the service can export, with their current labels."""
    client.post("/v1/models/words/top_k", json={"inputs": [[0.5] * HIDDEN]})
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        for ending in endings.get(family.type, [""]):
            found.setdefault(family.name.removesuffix(ending) + ending, set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_every_metric_on_the_dashboard_is_exported(client):
    assert len(NAMED) > 10
    assert exported(client).keys() >= NAMED


def test_every_metric_of_an_alert_is_exported(client):
    named = set(re.findall(r"\bhsoftmax_[a-z_]+", " ".join(ALERTS)))
    assert len(named) >= 4
    assert exported(client).keys() >= named


def test_every_metric_of_ours_is_on_the_dashboard(client):
    shown = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in NAMED}
    for name in exported(client):
        base = re.sub(r"_(total|bucket|sum|count)$", "", name)
        assert base in shown or not base.startswith("hsoftmax_") or base in QUIET, base


# A rate of batched requests adds no information to the rows of a batch.
QUIET = {"hsoftmax_batched_requests"}


def test_what_it_groups_by_is_a_label(client):
    found = exported(client)
    of_the_scrape = {"job", "instance", "le"}
    for expression in [*EXPRESSIONS, *ALERTS]:
        names = re.findall(r"\b(?:hsoftmax|process)_[a-z_]+", expression)
        for group in re.findall(r"by \(([^)]*)\)", expression):
            labels = {label.strip() for label in group.split(",")} - of_the_scrape
            assert all(labels <= found[name] for name in names if found[name]), expression

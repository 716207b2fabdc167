"""Metrics and the log name each route by its whole path, as the OpenAPI document does."""

import re

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from hsoftmax.service import Settings, create_app

VALUES = {"name": "words", "version": "2", "alias": "stable"}
HEADERS = {"authorization": "Bearer root"}


def test_the_label_of_every_route_is_its_path_in_the_document(repository):
    with TestClient(create_app(Settings(repository=repository, admin_key="root"))) as client:
        paths = client.get("/openapi.json", headers=HEADERS).json()["paths"]
        for path, methods in paths.items():
            filled = re.sub(r"\{(\w+)\}", lambda found: VALUES.get(found[1], "1"), path)
            for method in methods:
                client.request(method, filled, headers=HEADERS, content=b"?")
        text = client.get("/metrics", headers=HEADERS).text
    labels = {
        sample.labels["route"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "hsoftmax_requests_total"
    }
    assert labels >= {"/v1/models/{name}/rollback", "/v2/repository/models/{name}/load"}
    assert labels - {"/openapi.json", "unmatched"} <= paths.keys()

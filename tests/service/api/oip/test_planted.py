"""A new operation is in /v1 and in /v2 as soon as it is one of the operations."""

import json
import subprocess
import sys

import pytest


def test_an_operation_that_is_added_appears_everywhere(repository):
    command = [sys.executable, "-m", "tests.service.api.oip.planted", str(repository)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(printed.stdout.splitlines()[-1])
    assert found["v2"] == pytest.approx(found["v1"], rel=1e-6)
    for listed in (found["metadata"], found["config"]):
        assert listed[-2:] == ["planted_cluster_log_probs", "planted_cluster_probs"]
    assert "/v1/models/{name}/planted" in found["openapi"]

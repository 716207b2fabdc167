"""The base of the manifests uses existing settings and paths, and gives time to drain."""

import re
from pathlib import Path

import yaml

from hsoftmax.service import Settings
from hsoftmax.service.middleware.authentication import HEALTH_PATHS

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
DEPLOYMENT, BUDGET, SERVICE = (
    yaml.safe_load((FOLDER / "base" / f"{name}.yaml").read_text())
    for name in ("deployment", "disruption-budget", "service")
)
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
TOLD = {one["name"]: one.get("value") for one in CONTAINER["env"]}


def test_every_variable_is_a_setting():
    names = {name.removeprefix("HSOFTMAX_").lower() for name in TOLD}
    assert names <= Settings.model_fields.keys()


def test_there_is_time_to_drain():
    drain = float(TOLD["HSOFTMAX_DRAIN_DELAY"]) + float(TOLD["HSOFTMAX_DRAIN_TIMEOUT"])
    assert POD["terminationGracePeriodSeconds"] > drain + 10


def test_probes_ask_routes_that_need_no_key():
    probes = [CONTAINER[f"{name}Probe"] for name in ("startup", "readiness", "liveness")]
    assert {probe["httpGet"]["path"] for probe in probes} <= HEALTH_PATHS


def test_each_port_of_the_container_is_one_that_the_service_listens_on():
    ports = {one["name"]: str(one["containerPort"]) for one in CONTAINER["ports"]}
    assert ports == {"http": TOLD["HSOFTMAX_PORT"], "metrics": TOLD["HSOFTMAX_METRICS_PORT"]}
    targets = {one["name"]: one["targetPort"] for one in SERVICE["spec"]["ports"]}
    assert targets == {"http": "http", "metrics": "metrics"}


def test_it_may_do_nothing_that_it_need_not():
    allowed = CONTAINER["securityContext"]
    assert allowed["readOnlyRootFilesystem"]
    assert not allowed["allowPrivilegeEscalation"]
    assert allowed["capabilities"] == {"drop": ["ALL"]}
    assert POD["securityContext"]["runAsNonRoot"]
    dockerfile = (FOLDER.parents[1] / "Dockerfile").read_text()
    uid = re.search(r"^USER (\d+):", dockerfile, re.MULTILINE)
    assert int(uid[1]) == POD["securityContext"]["runAsUser"]


def test_the_budget_finds_its_pods():
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert BUDGET["spec"]["selector"]["matchLabels"] == labels


def test_streams_have_room_for_what_they_spool():
    volumes = {one["name"]: one for one in POD["volumes"]}
    size = int(volumes["tmp"]["emptyDir"]["sizeLimit"].removesuffix("Mi")) * 2**20
    spooled = int(TOLD["HSOFTMAX_MAX_STREAMS"]) * int(TOLD["HSOFTMAX_STREAM_SPOOL_BYTES"])
    assert size >= 1.1 * spooled * int(TOLD.get("HSOFTMAX_WORKERS", 1))

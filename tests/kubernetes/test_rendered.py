"""The manifests as `kubectl kustomize` renders them, checked against schemas of Kubernetes.

`make test-kubernetes`. Custom resources are checked where CRDS is a folder with the definitions of
their kinds (ServiceMonitor, ScaledObject, ServingRuntime, InferenceService) as their projects
publish them.
"""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from hsoftmax.service import Settings

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl"),
]

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
RENDERED = ["base", "overlays/cpu", "overlays/cuda", "overlays/jobs", "kserve"]
WITH_DEPLOYMENT = RENDERED[:-1]
OVERLAYS = WITH_DEPLOYMENT[1:]
VERSIONS = ["1.34.0", "1.35.0", "1.36.0", "1.37.0"]
CUSTOM = ("monitoring.coreos.com/", "keda.sh/", "serving.kserve.io/")
_UNITS = {"Mi": 2**20, "Gi": 2**30}
_MARGIN_S = 10  # to end the process after its requests

Object = dict[str, Any]


@cache
def render(name: str) -> list[Object]:
    command = ["kubectl", "kustomize", str(FOLDER / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(name: str, kind: str) -> list[Object]:
    return [one for one in render(name) if one["kind"] == kind]


def is_custom(one: Object) -> bool:
    return one["apiVersion"].startswith(CUSTOM)


def pod_and_container(name: str) -> tuple[Object, Object]:
    if name == "kserve":
        (runtime,) = of_kind(name, "ServingRuntime")
        (service,) = of_kind(name, "InferenceService")
        pod = {**runtime["spec"], **service["spec"]["predictor"]}
    else:
        (deployment,) = of_kind(name, "Deployment")
        pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def environment(container: Object) -> dict[str, Any]:
    return {one["name"]: one.get("value") for one in container["env"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", RENDERED)
def test_built_in_kinds_fit_their_schemas(name, version):
    validate = pytest.importorskip("kubernetes_validate").validate
    for one in render(name):
        if not is_custom(one):
            validate(one, version, strict=True)


@pytest.mark.parametrize("name", ["overlays/cuda", "overlays/jobs", "kserve"])
def test_custom_kinds_fit_their_definitions(name):
    jsonschema = pytest.importorskip("jsonschema")
    folder = os.environ.get("CRDS")
    if not folder:
        pytest.skip("CRDS is no folder of custom resource definitions")
    schemas = read_definitions(Path(folder))
    custom = [one for one in render(name) if is_custom(one)]
    assert custom
    for one in custom:
        schema = schemas[one["apiVersion"], one["kind"]]
        jsonschema.Draft202012Validator(schema).validate(one)


def test_a_misspelt_field_of_a_custom_kind_is_found():
    jsonschema = pytest.importorskip("jsonschema")
    schema = {"type": "object", "properties": {"spec": {
        "type": "object", "properties": {"interval": {"type": "string"}}}}}  # fmt: skip
    strict = without_unknown_fields(schema)
    jsonschema.validate({"spec": {"interval": "15s"}}, strict)
    with pytest.raises(jsonschema.ValidationError, match="intervall"):
        jsonschema.validate({"spec": {"intervall": "15s"}}, strict)


@pytest.mark.parametrize("name", RENDERED)
def test_a_pod_has_time_to_drain(name):
    pod, container = pod_and_container(name)
    told = environment(container)
    drain = float(told["HSOFTMAX_DRAIN_DELAY"]) + float(told["HSOFTMAX_DRAIN_TIMEOUT"])
    stop = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert stop + drain + _MARGIN_S <= pod["terminationGracePeriodSeconds"]
    probe = container["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < float(told["HSOFTMAX_DRAIN_DELAY"])


@pytest.mark.parametrize("name", RENDERED)
def test_every_variable_is_a_setting_and_tmp_has_room_for_spools(name):
    pod, container = pod_and_container(name)
    told = environment(container)
    settings = {one.removeprefix("HSOFTMAX_").lower() for one in told}
    assert settings <= Settings.model_fields.keys()
    (tmp,) = [one for one in pod["volumes"] if one["name"] == "tmp"]
    size = tmp["emptyDir"]["sizeLimit"]
    spooled = int(told["HSOFTMAX_MAX_STREAMS"]) * int(told["HSOFTMAX_STREAM_SPOOL_BYTES"])
    workers = int(told.get("HSOFTMAX_WORKERS", 1))
    assert int(size[:-2]) * _UNITS[size[-2:]] >= 1.1 * spooled * workers


@pytest.mark.parametrize("name", WITH_DEPLOYMENT)
def test_selectors_find_the_pods_of_their_own_overlay_alone(name):
    (deployment,) = of_kind(name, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selected = [
        of_kind(name, "Service")[0]["spec"]["selector"],
        of_kind(name, "PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"],
        deployment["spec"]["selector"]["matchLabels"],
        *(one["spec"]["podSelector"]["matchLabels"] for one in of_kind(name, "NetworkPolicy")),
        *(one["spec"]["selector"]["matchLabels"] for one in of_kind(name, "ServiceMonitor")),
    ]
    assert all(selector == labels for selector in selected)
    (jobs,) = of_kind("overlays/jobs", "Deployment")
    assert (jobs["spec"]["template"]["metadata"]["labels"] == labels) == (name == "overlays/jobs")


@pytest.mark.parametrize("name", OVERLAYS)
def test_only_the_namespace_of_prometheus_reaches_the_metrics_port(name):
    (policy,) = of_kind(name, "NetworkPolicy")
    clients, prometheus = policy["spec"]["ingress"]  # each rule allows its own ports alone
    (client,) = clients["from"]
    assert client == {"podSelector": {"matchExpressions": [
        {"key": "hsoftmax-client", "operator": "In", "values": ["true"]}]}}  # fmt: skip
    assert [one["port"] for one in clients["ports"]] == ["http"]
    (namespace,) = prometheus["from"]
    labels = {"kubernetes.io/metadata.name": "monitoring"}
    assert namespace == {"namespaceSelector": {"matchLabels": labels}}
    assert [one["port"] for one in prometheus["ports"]] == ["metrics"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_prometheus_reads_the_metrics_port_without_a_key(name):
    _, container = pod_and_container(name)
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert environment(container)["HSOFTMAX_METRICS_PORT"] == str(ports["metrics"])
    (service,) = of_kind(name, "Service")
    assert {one["name"]: one["targetPort"] for one in service["spec"]["ports"]}["metrics"] == (
        "metrics"
    )
    for monitor in of_kind(name, "ServiceMonitor"):
        (endpoint,) = monitor["spec"]["endpoints"]
        assert (endpoint["port"], endpoint["path"]) == ("metrics", "/metrics")
        assert "authorization" not in endpoint


def test_kserve_tells_prometheus_the_metrics_port():
    (runtime,) = of_kind("kserve", "ServingRuntime")
    (container,) = runtime["spec"]["containers"]
    arguments = container["args"]
    told = runtime["spec"]["annotations"]
    assert told["prometheus.kserve.io/path"] == "/metrics"
    assert told["prometheus.kserve.io/port"] == arguments[arguments.index("--metrics-port") + 1]
    assert len(container["ports"]) == 1  # Knative refuses more
    (service,) = of_kind("kserve", "InferenceService")
    scraped = "serving.kserve.io/enable-prometheus-scraping"
    assert service["metadata"]["annotations"][scraped] == "true"


@pytest.mark.parametrize("name", WITH_DEPLOYMENT)
def test_volumes_and_scaled_deployments_are_there(name):
    pod, container = pod_and_container(name)
    volumes = {one["name"] for one in pod["volumes"]}
    for one in (container, *pod.get("initContainers", ())):
        assert {mount["name"] for mount in one["volumeMounts"]} <= volumes
        assert one["securityContext"]["readOnlyRootFilesystem"]
    claims = {one["metadata"]["name"] for one in of_kind(name, "PersistentVolumeClaim")}
    used = {one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"]
            if "persistentVolumeClaim" in one}  # fmt: skip
    assert claims == used - {"hsoftmax-models"}
    (deployment,) = of_kind(name, "Deployment")
    scalers = of_kind(name, "HorizontalPodAutoscaler") + of_kind(name, "ScaledObject")
    for one in scalers:
        assert one["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert ("replicas" in deployment["spec"]) == (not scalers)  # else each apply resets them
    if "state" in volumes:  # one pod at a time has the state
        assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def read_definitions(folder: Path) -> dict[tuple[str, str], Object]:
    """Return the schemas of all kinds that are defined in a folder, by version and kind."""
    schemas = {}
    for path in sorted(folder.glob("*.yaml")):
        for one in yaml.load_all(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            for version in one["spec"]["versions"] if one else ():
                key = f"{one['spec']['group']}/{version['name']}", one["spec"]["names"]["kind"]
                schema = without_unknown_fields(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                schemas[key] = schema
    return schemas


def without_unknown_fields(schema: Any) -> Any:
    """Return the schema that refuses fields which the API server would drop without a word."""
    if isinstance(schema, list):
        return [without_unknown_fields(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: without_unknown_fields(one) for name, one in schema.items()}
    if strict.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    keeps = strict.get("x-kubernetes-preserve-unknown-fields")
    if strict.get("type") == "object" and "properties" in strict and not keeps:
        strict.setdefault("additionalProperties", False)
    return strict

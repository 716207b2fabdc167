"""Routes GET /v1/models and /v1/models/{name}, which describe the served bundles."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from hsoftmax.bundle import Encoder
from hsoftmax.featurizers import example_input
from hsoftmax.runtime.devices import FallbackCause
from hsoftmax.service.http.request_context import request_context_of
from hsoftmax.service.inference.operation import VERSION_DESCRIPTION
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.repository.repository import Repository

from .dependencies import Context


class OpenAIModel(BaseModel):
    """The fields of a model in OpenAI's API."""

    id: str = Field(description="the name of the bundle")
    object: Literal["model"] = "model"
    created: int = Field(description="Unix seconds of the bundle's manifest")
    owned_by: str = "hsoftmax"


class EncoderInput(BaseModel):
    """One input of an encoder."""

    name: str
    dtype: str
    shape: list[int | str] = Field(description="of one row; a name is any number of positions")
    num_ids: int | None = Field(description="integers are 0 to num_ids - 1; null is no bound")


class EncoderDescription(BaseModel):
    """The encoder of a bundle."""

    inputs: list[EncoderInput] = Field(description="the inputs that a query gives by name")
    position: Literal["first", "last", "each"] | None = Field(
        description="position of a row whose state is asked about; each makes a row of every one"
    )


class CheckDescription(BaseModel):
    """One task that the export compared with a float64 reference over the stored weights."""

    task: str
    case: str = Field(description="kind of the rows, such as ordinary, large, extreme")
    values: int = Field(description="numbers that were compared")
    max_error: float = Field(description="largest difference from the reference")
    tolerance: float = Field(description="largest difference that the export accepts")
    passed: bool


class AccuracyDescription(BaseModel):
    """Answers that the export compared with the trained weights in float64."""

    rows_from: Literal["drawn", "calibration"] = Field(
        description="drawn: random rows; calibration: rows of the file that the export was given"
    )
    rows: int
    max_error: float = Field(description="largest difference of a log-probability")
    mean_error: float = Field(description="mean difference of a log-probability")
    kl: float = Field(description="mean KL divergence of a row, in nats")
    top1_agreement: float = Field(description="share of rows with the same likeliest target")
    top10_agreement: float = Field(description="share of the ten likeliest targets that are equal")


class ModelDescription(OpenAIModel):
    """Description of one version of a bundle."""

    name: str
    version: str = Field(description="the version described")
    versions: list[str] = Field(
        description="all served versions; the last is the default without a rollout"
    )
    digest: str = Field(description="SHA-256 that identifies the bundle")
    family: str
    hidden_size: int | None
    num_targets: int | None
    num_clusters: int | None
    precision: str
    accuracy: list[AccuracyDescription] = Field(
        description="measured error against the trained weights; empty for a layer without softmax"
    )
    verification: list[CheckDescription] = Field(
        description="checks of the export, all of which passed"
    )
    size_bytes: int = Field(description="bytes of all files of the bundle")
    padding: str | None = Field(description="treatment of slots beyond num_targets")
    refused: dict[str, str] = Field(
        description="reasons by version of versions that are not served as they are now"
    )
    aliases: dict[str, str] = Field(description="the version of each alias")
    labels: bool = Field(description="true if targets have labels")
    inner_nodes: int = Field(
        description="inner nodes of a tree that a query may name by label in place of a target"
    )
    inputs: list[str] = Field(
        description="kinds of a row of `inputs`: hidden (hidden_size numbers), named (the "
        "inputs of the encoder by name), text (a string), words (a list of strings)"
    )
    example: str | list[str] | None = Field(
        description="a text or words that the bundle can read; null if it takes neither"
    )
    encoder: EncoderDescription | None = Field(description="what is in front of the head, if any")
    label_prefix: str = Field(description="text that a label may have in front in a query")
    tasks: list[str] = Field(description="tasks that the bundle has graphs for")
    device: str = Field(description="device of the graphs: cpu or cuda")
    devices: dict[str, str] = Field(description="device that computes each task: cpu or cuda")
    device_fallback: FallbackCause | None = Field(
        description="why `auto` chose the CPU although this ONNX Runtime supports CUDA; the log "
        "has the reason"
    )
    providers: list[str] = Field(description="execution providers of ONNX Runtime")
    native: list[str] = Field(description="tasks that native kernels compute, not the graphs")


class BundleList(BaseModel):
    """Every bundle in its default version; `data` has them as in OpenAI's API."""

    object: Literal["list"] = "list"
    models: list[ModelDescription]
    data: list[OpenAIModel]


bundle_routes = APIRouter(prefix="/v1/models", tags=["bundles"])


@bundle_routes.get("", summary="List served bundles")
async def list_bundles(context: Context, request: Request) -> BundleList:
    allows = request_context_of(request.scope).allows_model
    bundles = [context.repository.find(name) for name in context.repository.names() if allows(name)]
    return BundleList(
        models=[describe(one, context.repository) for one in bundles],
        data=[OpenAIModel(id=one.name, created=one.created) for one in bundles],
    )


@bundle_routes.get("/{name}", summary="Describe a bundle")
async def describe_bundle(
    context: Context,
    request: Request,
    name: str,
    version: Annotated[str | None, Query(description=VERSION_DESCRIPTION)] = None,
) -> ModelDescription:
    bundle = context.repository.find(name, version)
    request_context_of(request.scope).set_model(bundle)
    return describe(bundle, context.repository)


def describe(bundle: LoadedBundle, repository: Repository) -> ModelDescription:
    """Describe the current state of one version."""
    manifest = bundle.manifest
    return ModelDescription(
        id=bundle.name,
        created=bundle.created,
        name=bundle.name,
        version=bundle.version,
        versions=repository.versions(bundle.name),
        refused=_refused(bundle.name, repository),
        aliases=repository.aliases(bundle.name),
        digest=manifest.digest,
        family=manifest.family,
        hidden_size=manifest.hidden_size,
        num_targets=manifest.num_targets,
        num_clusters=manifest.num_clusters,
        precision=manifest.precision,
        accuracy=[AccuracyDescription(**dict(measured)) for measured in manifest.accuracy],
        verification=[CheckDescription(**dict(check)) for check in manifest.verification],
        size_bytes=sum(file.size for file in manifest.files.values()),
        padding=manifest.padding,
        labels=bundle.labels is not None,
        inner_nodes=len(bundle.inner_labels),
        inputs=list(bundle.inputs),
        example=_example(bundle),
        encoder=None if manifest.encoder is None else _describe_encoder(manifest.encoder),
        label_prefix=bundle.bundle_info.label_prefix,
        tasks=sorted(bundle.sessions),
        device=bundle.device.name,
        devices=bundle.devices,
        device_fallback=bundle.device.fallback_cause,
        providers=bundle.providers,
        native=bundle.native_tasks,
    )


def _example(bundle: LoadedBundle) -> str | list[str] | None:
    """Return an input that the bundle's featurizer or tokenizer can read."""
    if not bundle.takes_text:
        return None
    example = example_input(bundle.featurizer)
    return example if isinstance(example, str) else list(example)


def _describe_encoder(encoder: Encoder) -> EncoderDescription:
    return EncoderDescription(
        inputs=[
            EncoderInput(
                name=port.name,
                dtype=port.dtype,
                shape=list(port.shape[1:]),
                num_ids=encoder.num_ids.get(port.name),
            )
            for port in encoder.row_inputs
        ],
        position=encoder.position,
    )


def _refused(name: str, repository: Repository) -> dict[str, str]:
    """Return the reasons of the bundle's refused versions, by version."""
    parted = ((key.rpartition("/"), reason) for key, reason in repository.refused.items())
    return {version: reason for (model, _, version), reason in parted if model == name}

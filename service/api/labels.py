"""Route GET /v1/models/{name}/labels: searches labels, and looks up labels and targets."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from hsoftmax.scoring.label_search import (
    DEFAULT_PAGE_LABELS,
    MAX_PAGE_LABELS,
    LabelMatches,
    LabelSearch,
    page_of,
    search_steps,
)
from hsoftmax.scoring.numbers import parse_integer
from hsoftmax.service.context import AppContext
from hsoftmax.service.errors import InvalidQuery, TargetOutOfRange, UnknownLabel
from hsoftmax.service.http.request_context import request_context_of
from hsoftmax.service.inference.operation import VERSION_DESCRIPTION
from hsoftmax.service.inference.validation import unknown_label
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.suggestions import did_you_mean

from .dependencies import Context, ParameterInteger

_LISTS = ("ids", "label")


class LabelsQuery(BaseModel):
    """Parameters of the route: a search with its page, or targets, or labels."""

    search: str = Field("", description="text that a label contains")
    prefix: str = Field("", description="text that a label begins with")
    start: ParameterInteger = Field(0, ge=0, description="first target of the page")
    limit: ParameterInteger = Field(
        DEFAULT_PAGE_LABELS, ge=1, le=MAX_PAGE_LABELS, description="most labels of the page"
    )
    ids: list[str] = Field(
        [], description="targets whose labels are wanted, with commas between them"
    )
    label: list[str] = Field([], description="a label whose target is wanted; may be repeated")
    version: str | None = Field(None, description=VERSION_DESCRIPTION)


class LabelList(BaseModel):
    """Targets and their labels, in the same order."""

    model: str
    version: str
    targets: list[int | None] = Field(
        description="null for an inner node of a tree, which a query names by its label"
    )
    labels: list[str]
    next: int | None = Field(
        description="the `start` of the next page, null if there are no more labels"
    )


label_routes = APIRouter(prefix="/v1/models", tags=["bundles"])


@label_routes.get(
    "/{name}/labels",
    summary="Search labels, or look up labels and targets",
    responses={404: {}, 422: {}},
)
async def list_labels(
    context: Context, request: Request, name: str, query: Annotated[LabelsQuery, Query()]
) -> LabelList:
    _expect_known_parameters(request)
    request_context = request_context_of(request.scope)
    bundle = context.repository.find(name, query.version, request_context.sticky_key)
    request_context.set_model(bundle)
    if bundle.labels is None:
        raise UnknownLabel(f"labels: expected a bundle with labels, {bundle.name} has none")
    _expect_one_question(query)
    if query.ids:
        found = LabelMatches(_targets_of_ids(query.ids, bundle), None)
    elif query.label:
        found = LabelMatches(tuple(_target_of(label, bundle) for label in query.label), None)
    else:
        found = await _search(query, bundle, context)
    info = bundle.bundle_info
    return LabelList(
        model=bundle.name,
        version=bundle.version,
        targets=[info.target_or_none(number) for number in found.targets],
        labels=[info.all_labels[number] for number in found.targets],
        next=found.next_start,
    )


async def _search(query: LabelsQuery, bundle: LoadedBundle, context: AppContext) -> LabelMatches:
    """Search in slices, so that other requests go on between them. Inner nodes come last."""
    search = LabelSearch(
        search=query.search,
        prefix=query.prefix.removeprefix(bundle.bundle_info.label_prefix),
        start=query.start,
        limit=query.limit,
    )
    steps, found = search_steps(bundle.bundle_info.all_labels, search), []
    while (step := await context.engine.run_in_idle(partial(next, steps, None))) is not None:
        found.append(step)
    return page_of(found, search)


def _expect_known_parameters(request: Request) -> None:
    """Raise InvalidQuery if a parameter is unknown, or one that is no list is given twice."""
    known, given = LabelsQuery.model_fields, request.query_params.multi_items()
    for name in dict(given):
        if name not in known:
            hint = did_you_mean(name, known)
            names = ", ".join(known)
            raise InvalidQuery(f"unknown parameter {name[:60]!r}: expected {names}{hint}")
        if name not in _LISTS and len(request.query_params.getlist(name)) > 1:
            raise InvalidQuery(f"{name}: expected once, got it again")


def _expect_one_question(query: LabelsQuery) -> None:
    """Raise InvalidQuery if targets or labels are asked for together with anything else."""
    given = query.model_fields_set - {"version"}
    for name in _LISTS:
        if name in given and (others := given - {name}):
            raise InvalidQuery(f"{name}: expected no {min(others)} beside it, got one")


def _targets_of_ids(ids: list[str], bundle: LoadedBundle) -> tuple[int, ...]:
    """Return the targets in the texts. Raises InvalidQuery or TargetOutOfRange."""
    return tuple(_target_of_id(text, bundle) for one in ids for text in one.split(","))


def _target_of_id(text: str, bundle: LoadedBundle) -> int:
    target = parse_integer(text)
    if target is None:
        raise InvalidQuery(f"ids: expected integers with commas between them, got {text[:60]!r}")
    if not 0 <= target < bundle.num_targets:
        raise TargetOutOfRange(f"ids: expected 0 to {bundle.num_targets - 1}, got {target}")
    return target


def _target_of(label: str, bundle: LoadedBundle) -> int:
    target = bundle.bundle_info.find_target(label)
    if target is None:
        raise unknown_label("label", label, bundle)
    return target

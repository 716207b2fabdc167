"""A request that is read and validated: the graph calls to run, and the form of its response."""

from collections.abc import Mapping

import msgspec

from hsoftmax.service.http.content_types import Format
from hsoftmax.service.http.request_options import RequestOptions

from .operations import Plan


class PreparedRequest(msgspec.Struct):
    """A validated request, as the endpoint of an operation builds it.

    Attributes:
        options: timeout and priority
        response_type: content type of the response
        plan: the graph calls to run
        bundle_fields: response fields that name the bundle: `model` and `version`
    """

    options: RequestOptions
    response_type: Format
    plan: Plan
    bundle_fields: Mapping[str, str]

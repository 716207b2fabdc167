"""A question that has been read and checked: what is to be run, and how it is to be answered."""

from collections.abc import Mapping

import msgspec

from hsoftmax.service.http.content_types import Format
from hsoftmax.service.http.request_options import RequestOptions

from .operations import Plan


class PreparedRequest(msgspec.Struct):
    """Made once for a request.

    Attributes:
        options: how long the client waits, and before whom
        wanted: the format of the answer
        plan: what is to be run
        answer: what the answer says beside the numbers
    """

    options: RequestOptions
    wanted: Format
    plan: Plan
    answer: Mapping[str, str]

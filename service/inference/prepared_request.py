"""A question that has been read and checked: what is to be run, and how it is to be answered."""

from collections.abc import Mapping

import msgspec

from hsoftmax.service.http.content_types import Format
from hsoftmax.service.http.request_options import Terms

from .operations import Plan


class Order(msgspec.Struct):
    """Made once for a request.

    Attributes:
        terms: how long the client waits, and before whom
        wanted: the format of the answer
        plan: what is to be run
        answer: what the answer says beside the numbers
    """

    terms: Terms
    wanted: Format
    plan: Plan
    answer: Mapping[str, str]

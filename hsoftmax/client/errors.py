"""The error of a request, with the sentence and the code of the service."""

import json
from typing import ClassVar

from hsoftmax.models import UserError


class ClientError(UserError):
    """A request that the service refused, or did not answer.

    Attributes:
        sentence, code: of the service's error, empty if there is none
        status: HTTP status of the answer, 0 if there was none
    """

    def __init__(
        self, message: str, sentence: str = "", code: str = "", *, status: int = 0
    ) -> None:
        super().__init__(message)
        self.sentence = sentence
        self.code = code
        self.status = status


class InvalidApiKey(ClientError):
    """An API key that no HTTP header can carry."""

    exit_code: ClassVar[int] = 2


def refusal(url: str, status: int, content: bytes) -> ClientError:
    """Returns the error for a refused request, with the service's sentence if there is one."""
    try:
        sentence, code = _sentence_and_code(json.loads(content))
    except (ValueError, KeyError, TypeError):
        return ClientError(f"{url}: {status}", status=status)
    return ClientError(f"{url}: {status}: {sentence}", sentence, code, status=status)


def _sentence_and_code(body: dict[str, object]) -> tuple[str, str]:
    """Returns the sentence and the code of an error in our shape, or in that of OpenAI's API."""
    error = body["error"]
    if isinstance(error, dict):
        return str(error["message"]), str(error.get("code", ""))
    return str(error), str(body.get("code", ""))

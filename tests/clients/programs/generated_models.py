"""Reads answers with the classes that datamodel-codegen generated. Argument: the server's URL."""

import json
import sys
import urllib.error
import urllib.request

import api


def ask(path: str, body: object = None) -> bytes:
    headers = {"authorization": "Bearer secret", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{sys.argv[1]}{path}", data, headers)
    try:
        with urllib.request.urlopen(request) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        return error.read()


row = [0.5] * 8
models = api.BundleList.model_validate_json(ask("/v1/models"))
assert [model.id for model in models.data] == ["layer", "plain", "words"]
query = api.TopKQuery(inputs=[row], k=2).model_dump(exclude_none=True)
answer = api.TopKAnswer.model_validate_json(ask("/v1/models/words/top_k", query))
assert len(answer.results[0].targets) == 2
query = api.ProbabilitiesQuery(inputs=[row], targets=[[1, 2]]).model_dump(exclude_none=True)
answer = api.ProbabilitiesAnswer.model_validate_json(ask("/v1/models/words/probabilities", query))
assert answer.model == "words"
assert api.FileList.model_validate_json(ask("/v1/files")).data == []
api.Error.model_validate_json(ask("/v1/models/none"))
api.OpenAIError.model_validate_json(ask("/v1/files/none"))

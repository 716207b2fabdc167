"""Uses the client that openapi-python-client generated. Argument: the server's URL."""

import sys

from hsoftmax_client import AuthenticatedClient
from hsoftmax_client.api.bundles import list_bundles_v1_models_get as list_bundles
from hsoftmax_client.api.jobs import file_v1_files_id_get as show_file
from hsoftmax_client.api.operations import probabilities, top_k
from hsoftmax_client.models import Error, OpenAIError, ProbabilitiesQuery, TopKQuery

with AuthenticatedClient(base_url=sys.argv[1], token="secret") as client:
    listed = list_bundles.sync(client=client)
    assert [model.name for model in listed.models] == ["layer", "plain", "words"]
    row = [0.5] * listed.models[1].hidden_size
    answer = probabilities.sync("words", client=client,
                                body=ProbabilitiesQuery(inputs=[row], targets=[3]))  # fmt: skip
    assert 0 < answer.probabilities[0] < 1
    likeliest = top_k.sync("words", client=client, body=TopKQuery(inputs=[row], k=3)).results[0]
    assert len(likeliest.targets) == len(likeliest.labels) == 3
    wrong = top_k.sync("words", client=client, body=TopKQuery(inputs=[row[1:]]))
    assert isinstance(wrong, Error)
    assert wrong.code == "invalid_query"
    missing = show_file.sync("file-0", client=client)
    assert isinstance(missing, OpenAIError)
    assert missing.error.code == "unknown_file"

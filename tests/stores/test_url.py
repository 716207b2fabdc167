"""Tests of the addresses of stores."""

import pytest

from hsoftmax.stores.errors import UrlError
from hsoftmax.stores.url import is_url, parse_url


@pytest.mark.parametrize(
    "text",
    ["s3://bucket/models", "gs://bucket", "az://container/a/b", "https://host:8443/models/words/1",
     "file:///srv/models", "http://127.0.0.1:9000/models"],
)  # fmt: skip
def test_an_address_is_written_as_it_was_read(text):
    assert str(parse_url(text)) == text
    assert parse_url(text + "/") == parse_url(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("s4://bucket", "did you mean s3://?"),
        ("s3://", "got s3://"),
        ("s3:///models", "got s3://"),
        ("http://example.org/models", "which anyone on the way can change"),
        ("s3://key:SECRET@bucket/models", "without user"),
        ("https://host/models?sig=SECRET", "without user, query"),
        ("s3://bucket/a/../b", "dots"),
        ("s3://bucket/a//b", "empty part"),
        ("s3://bucket/a b", "space"),
    ],
)
def test_a_wrong_address_is_one_sentence_without_its_secrets(text, sentence):
    assert is_url(text)
    with pytest.raises(UrlError) as caught:
        parse_url(text)
    assert sentence in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_an_address_is_within_another_by_whole_parts():
    assert parse_url("s3://b/in/a.csv").is_within(parse_url("s3://b/in"))
    for other in ("s3://b/inner/a.csv", "s3://b2/in/a.csv", "gs://b/in/a.csv", "s3://b"):
        assert not parse_url(other).is_within(parse_url("s3://b/in"))

"""A small `tokenizer.json`, written without the library."""

import json
from pathlib import Path

WORDS = {"[UNK]": 0, "we": 1, "the": 2, "people": 3, "of": 4}


def write_json(path: Path, vocabulary: dict[str, int] = WORDS, **parts) -> Path:
    """A tokenizer that splits at spaces, in the format of the library."""
    content = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }  # fmt: skip
    path.write_text(json.dumps(content | parts))
    return path

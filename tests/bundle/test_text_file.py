"""One way to read text: UTF-8 with or without a mark, two line ends, one sentence for the rest."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsoftmax.bundle import TextFileError, decode_text, other_encoding, read_lines

LINES = ["first", "", "ünï ", "last"]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["bare", "mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "open"])
def test_lines_are_the_same_with_any_mark_and_line_end(tmp_path, mark, end, closed):
    path = tmp_path / "names.txt"
    path.write_bytes(mark + (end.join(LINES) + end * closed).encode())
    assert read_lines(path, "names") == LINES


def test_other_characters_end_no_line(tmp_path):
    """`str.splitlines` would split at each of these, and so would shift the labels after it."""
    path = tmp_path / "names.txt"
    line = "a\v\f\x1c\x1d\x1e\x85\u2028\u2029b"
    path.write_text(f"{line}\nnext\n", "utf-8")
    assert read_lines(path, "names") == [line, "next"]


def test_only_the_first_mark_is_dropped():
    assert decode_text("\ufeff\ufeffa\ufeff".encode(), "names") == "\ufeffa\ufeff"


def test_an_empty_file_has_no_lines(tmp_path):
    path = tmp_path / "names.txt"
    for content in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(content)
        assert read_lines(path, "names") == []


@pytest.mark.parametrize(
    ("content", "looks_like"),
    [
        *(("a,b\n".encode(f"utf-16-{order}"), "UTF-16: save it") for order in ("le", "be")),
        *(("a,b\n".encode(f"utf-32-{order}"), "UTF-32: save it") for order in ("le", "be")),
        *(("\ufeffé".encode(f"utf-16-{order}"), "UTF-16: save it") for order in ("le", "be")),
        *(("\ufeffé".encode(f"utf-32-{order}"), "UTF-32: save it") for order in ("le", "be")),
        ("café".encode("latin-1"), "byte 3 that is not, perhaps of Latin-1 or Windows-1252: save"),
        (gzip.compress(b"a", mtime=0), "gzip data: decompress it first"),
        (b"\x28\xb5\x2f\xfd\0", "zstd data: decompress it first"),
        (b"PK\x03\x04\0", "a zip archive: unpack it first"),
    ],
)
def test_what_is_no_utf8_is_refused_with_its_likely_kind(content, looks_like):
    with pytest.raises(TextFileError, match=rf"^names: expected UTF-8 text, got {looks_like}"):
        decode_text(content, "names")


def test_a_carriage_return_alone_is_refused(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes(b"a\nb\rc\n")
    with pytest.raises(TextFileError, match=r"^names: expected lines .* got \\r alone in line 2"):
        read_lines(path, "names")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_text_without_zeros_is_never_taken_for_another_encoding(text):
    content = text.encode()
    if not content.startswith(b"PK\x03\x04"):
        assert other_encoding(content) is None
        assert decode_text(content, "names") == text.removeprefix("\ufeff")

"""Bounds on the text of one row, so that the time and the memory of a row are bounded too."""

MAX_TEXT_BYTES = 2**20  # of one row in UTF-8
MAX_WORDS = 2**19  # of one row; as many fit into the longest text
MAX_NGRAM = 32  # characters or words in an n-gram; fastText's default is 6 characters

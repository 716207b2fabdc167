"""Writes fastText files with every variant and any kind of damage."""

import struct
from dataclasses import dataclass, field

import numpy as np

MAGIC = 793_712_314


@dataclass
class FastTextFile:
    """A small supervised model, written with the given fields."""

    labels: dict[str, int] = field(default_factory=lambda: {"__label__a": 5, "__label__b": 2})
    words: dict[str, int] = field(default_factory=lambda: {"</s>": 9, "x": 1})
    version: int = 12
    loss: int = 1
    model: int = 3
    dim: int = 4
    output: np.ndarray | None = None
    quantised_input: bool = False
    quantised_output: bool = False
    norms: bool = False
    pruned: int = -1
    magic: int = MAGIC
    codes: np.ndarray | None = None  # set by writing a quantised output
    decoded: np.ndarray | None = None

    def write(self, path):
        path.write_bytes(self.content())
        return path

    def content(self) -> bytes:
        return b"".join([self.header(), self.dictionary(), self.matrices()])

    def header(self) -> bytes:
        numbers = [self.dim, 5, 5, 1, 5, 1, self.loss, self.model, 0, 0, 0, 100]
        return struct.pack("<14id", self.magic, self.version, *numbers, 1e-4)

    def dictionary(self) -> bytes:
        size = len(self.words) + len(self.labels)
        counts = (size, len(self.words), len(self.labels), 99, self.pruned)
        parts = [struct.pack("<3i2q", *counts)]
        for kind, entries in enumerate((self.words, self.labels)):
            for name, count in entries.items():
                parts.append(name.encode() + b"\0" + struct.pack("<qb", count, kind))
        parts.append(struct.pack(f"<{2 * max(self.pruned, 0)}i", *range(2 * max(self.pruned, 0))))
        return b"".join(parts)

    def matrices(self) -> bytes:
        rng = np.random.default_rng(0)
        rows = len(self.words) + 2 * max(self.pruned, 0)  # `dictionary` numbers them 1, 3, …
        input_matrix = rng.normal(size=(rows, self.dim)).astype(np.float32)
        input_bytes = self.quantised(input_matrix) if self.quantised_input else dense(input_matrix)
        targets = self.labels if self.model == 3 else self.words
        if self.output is None:
            self.output = rng.normal(size=(len(targets), self.dim)).astype(np.float32)
        output_bytes = self.quantised(self.output) if self.quantised_output else dense(self.output)
        flags = struct.pack("<?", self.quantised_input), struct.pack("<?", self.quantised_output)
        return flags[0] + input_bytes + flags[1] + output_bytes

    def quantised(self, matrix: np.ndarray) -> bytes:
        """Write random codes and centroids with parts of two columns, and decode them naively."""
        rng = np.random.default_rng(1)
        rows, columns = matrix.shape
        sizes = [2] * ((columns - 1) // 2) + [columns - 2 * ((columns - 1) // 2)]
        codes = rng.integers(0, 256, (rows, len(sizes)), dtype=np.uint8)
        centroids = [rng.normal(size=(256, size)).astype(np.float32) for size in sizes]
        self.decoded = np.array(
            [np.concatenate([c[i] for c, i in zip(centroids, row, strict=True)]) for row in codes]
        )
        content = struct.pack("<?2qi", self.norms, rows, columns, codes.size) + codes.tobytes()
        content += struct.pack("<4i", columns, len(sizes), 2, sizes[-1])
        content += b"".join(c.tobytes() for c in centroids)
        if self.norms:
            norm_codes = rng.integers(0, 256, rows, dtype=np.uint8)
            norms = rng.random(256, dtype=np.float32)
            self.decoded = self.decoded * norms[norm_codes][:, None]
            content += norm_codes.tobytes() + struct.pack("<4i", 1, 1, 1, 1) + norms.tobytes()
        return content


def dense(matrix: np.ndarray) -> bytes:
    return struct.pack("<2q", *matrix.shape) + matrix.astype("<f4").tobytes()

"""A header is read as NumPy writes it, in each version of the format, and damage is one error."""

import io

import numpy as np
import pytest
from numpy.lib import format as npy

from hsoftmax.models.npy_header import NpyError, read_npy_header


def written(array: np.ndarray, version: tuple[int, int]) -> bytes:
    stream = io.BytesIO()
    npy.write_array(stream, array, version=version)
    return stream.getvalue()


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_header_says_shape_order_type_and_size(version, order):
    array = np.zeros((3, 5), dtype=np.float32, order=order)
    content = written(array, version)
    header = read_npy_header(content)
    assert (header.shape, header.dtype, header.by_column) == ((3, 5), np.float32, order == "F")
    assert len(content) == header.offset + array.nbytes


@pytest.mark.parametrize("cut", [0, 5, 8, 9, 40])
def test_a_header_cut_short_is_refused(cut):
    with pytest.raises(NpyError, match="expected NPY"):
        read_npy_header(written(np.zeros(3), (1, 0))[:cut])


def test_an_unknown_version_is_refused():
    content = bytearray(written(np.zeros(3), (1, 0)))
    content[6] = 9
    with pytest.raises(NpyError, match="expected NPY"):
        read_npy_header(bytes(content))

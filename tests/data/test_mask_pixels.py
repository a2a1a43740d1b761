"""What the pixels of a mask show, against a slow and plain count."""

import numpy as np
import pytest

from segkey.data.mask_pixels import counted_values, edges_of


def plain_edges(values):
    """Pixel by pixel, as the words say it."""
    edges = soft = 0
    for y in range(1, len(values) - 1):
        for x in range(1, len(values[0]) - 1):
            pixel = values[y, x]
            sides = values[y, x - 1], values[y, x + 1], values[y - 1, x], values[y + 1, x]
            edges += any(side != pixel for side in sides)
            ramps = (sorted((sides[n], pixel, sides[n + 1])) for n in (0, 2))
            between = any(low < pixel < high for low, _, high in ramps)
            soft += between or all(side != pixel for side in sides)
    return edges, soft


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
def test_edges_are_those_of_a_plain_count(kind):
    generator = np.random.default_rng(3)
    for _ in range(40):
        shape = generator.integers(1, 14, 2)
        values = generator.integers(0, generator.integers(1, 7), shape)
        for array in (values, np.cumsum(values, axis=1)):
            array = array.astype(kind)
            assert edges_of(array) == plain_edges(array)


@pytest.mark.parametrize("kind", [np.uint8, np.int32])
def test_values_are_counted(kind):
    values, counts = counted_values(np.array([[3, 0, 3], [250, 3, 0]], kind))
    assert (values.tolist(), counts.tolist()) == ([0, 3, 250], [2, 3, 1])

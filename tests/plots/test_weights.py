"""First-layer weights and filters: which are drawn, where, on which scale."""

import math

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="needs matplotlib: the `plot` extra")
from pictures import tile, weights

from tinygrad_mnist import Conv2d, plots


@pytest.mark.parametrize("units", [1, 2, 7, 40])
@pytest.mark.parametrize("shape", [(28, 28), (5, 8), (5, 8, 1)])
def test_each_image_is_a_column_of_the_weights_row_by_row(units, shape):
    (height, width), weight = shape[:2], weights(units, math.prod(shape))
    ax = plots.first_layer_weights(weight, shape=shape)
    columns = math.ceil(math.sqrt(units))  # about a square
    assert ax.images[0].get_array().shape[1] == columns * (width + 1) - 1
    for unit in range(units):
        image, around = tile(ax, unit, height, width, columns)
        scaled = weight[:, unit] / abs(weight[:, unit]).max()
        np.testing.assert_allclose(image, scaled.reshape(height, width))
        assert all((space == 99).all() for space in around)
    assert np.ma.count(ax.images[0].get_array()) == weight.size
    assert ax.images[0].get_clim() == (-1, 1)
    assert ax.get_title() == f"{units} units"


def test_those_with_the_largest_single_weights_are_drawn_largest_first():
    weight = np.array([[1, -1], [3, 3], [0, 1], [-4, 0.1], [np.nan, 9]]).T
    ax = plots.first_layer_weights(weight, shape=(1, 2), count=3)
    found = [tile(ax, k, 1, 2, 2)[0].tolist() for k in range(3)]
    np.testing.assert_allclose(found, [[[99, 1]], [[-1, 0.025]], [[1, 1]]])
    assert ax.get_title() == "the 3 of 5 units with the largest weights"


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ([0.0, 0], [0, 0]),
        ([np.nan, 0.5], [99, 1]),
        (np.array([-128, 127], np.int8), [-1, 127 / 128]),
    ],
)
def test_the_scale_of_a_unit_is_its_largest_finite_weight(column, shown):
    ax = plots.first_layer_weights(np.array(column)[:, None], shape=(1, 2))
    assert tile(ax, 0, 1, 2, 1)[0].tolist() == [shown]


def test_weights_of_colours_are_colours_around_grey():
    ax = plots.first_layer_weights(np.array([[2.0, 0, -1]]).T, shape=(1, 1, 3))
    assert ax.images[0].get_array().tolist() == [[[1, 0.5, 0.25, 1]]]


def test_filters_of_one_channel_are_images_in_their_order():
    conv = Conv2d(1, 5, (2, 3), rng=0)
    ax = plots.filters(conv)
    for k in range(5):
        kernel = conv.weight.data[:, :, 0, k]
        image, _ = tile(ax, k, 2, 3, 3)
        np.testing.assert_allclose(image, kernel / abs(kernel).max(), rtol=1e-6)
    assert ax.get_title() == "5 filters"


def test_filters_of_colours_are_colours_and_the_space_between_is_nothing():
    conv = Conv2d(3, 2, 2, rng=0)
    picture = plots.filters(conv).images[0].get_array()
    kernel = conv.weight.data[..., 1]
    np.testing.assert_allclose(picture[:, 3:, :3], (1 + kernel / abs(kernel).max()) / 2, rtol=1e-6)
    assert (picture[:, 2, 3] == 0).all()  # transparent
    assert picture[:, 3:, 3].all()


def test_filters_of_more_channels_are_rows_each_with_one_scale():
    conv = Conv2d(4, 3, 2, rng=0)
    ax = plots.filters(conv)
    for row in range(3):
        kernel = conv.weight.data[..., row]
        for channel in range(4):
            image, _ = tile(ax, row * 4 + channel, 2, 2, 4)
            wanted = kernel[..., channel] / abs(kernel).max()
            np.testing.assert_allclose(image, wanted, rtol=1e-6)
    assert ax.get_title() == "3 filters (down), 4 channels (across)"


@pytest.mark.parametrize(
    ("channels", "title", "tiles"),
    [
        (1, "64 of 70 filters", (8, 8)),
        (20, "16 of 70 filters (down), 16 of 20 channels (across)", (16, 16)),
    ],
)
def test_of_many_filters_the_first_are_drawn(channels, title, tiles):
    ax = plots.filters(Conv2d(channels, 70, 2, rng=0))
    assert ax.get_title() == title
    assert ax.images[0].get_array().shape == tuple(3 * n - 1 for n in tiles)

"""Rotations by place against complex numbers. Axes: N, D."""

import cmath

import pytest
import torch

from segwright.layers.rotary import rotary_angles, rotate


def test_by_hand_pairs_turn_with_column_and_row():
    angles = rotary_angles((2, 3), 8, torch.zeros((), dtype=torch.float64))
    x = torch.randn(6, 8, dtype=torch.float64)
    turned = rotate(x, angles)
    for pixel in range(6):
        row, column = divmod(pixel, 3)
        for pair, place, speed in ((0, column, 1.0), (1, column, 0.01), (2, row, 1.0), (3, row, 0.01)):
            given = complex(*x[pixel, 2 * pair : 2 * pair + 2].tolist())
            wanted = given * cmath.exp(1j * place * speed)
            assert turned[pixel, 2 * pair : 2 * pair + 2].tolist() == pytest.approx([wanted.real, wanted.imag])


def test_products_depend_on_how_far_pixels_lie_apart_alone():
    angles = rotary_angles((4, 5), 16, torch.zeros(()))
    query, key = (rotate(torch.randn(16).expand(20, 16), angles) for _ in range(2))
    products = (query @ key.T).view(4, 5, 4, 5)
    torch.testing.assert_close(products[0, 1, 2, 2], products[1, 3, 3, 4])
    assert (products[0, 0, 0, 1] - products[0, 0, 1, 0]).abs() > 1e-3


def test_several_maps_turn_alike_and_types_are_kept():
    angles = rotary_angles((2, 2), 8, torch.zeros((), dtype=torch.bfloat16))
    assert angles.dtype == torch.float32
    x = torch.randn(3, 12, 8)
    torch.testing.assert_close(rotate(x, angles)[:, 4:8], rotate(x[:, 4:8], angles))
    assert rotate(x.bfloat16(), angles).dtype == torch.bfloat16

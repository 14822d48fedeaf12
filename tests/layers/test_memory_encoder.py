"""What is remembered of an object. Parity is in tests/models/test_sam2.py. Axes: B objects, E, R, H, W."""

import torch

from segwright.layers.memory_encoder import MemoryEncoder


def test_one_map_and_a_mask_for_each_object_become_pixels_to_remember():
    torch.manual_seed(0)
    encoder = MemoryEncoder(16, 8).eval()
    image, masks = torch.randn(1, 16, 2, 3), torch.randn(4, 1, 32, 48)
    with torch.no_grad():
        found = encoder(image, masks)
        assert found.shape == (4, 6, 8)
        torch.testing.assert_close(found[2], encoder(image, masks[2, None])[0])
        assert (found[0] - found[1]).abs().max() > 1e-4


def test_a_change_of_the_mask_is_remembered_where_it_is():
    torch.manual_seed(0)
    encoder = MemoryEncoder(16, 8).double().eval()  # whose blocks begin as shortcuts
    image, masks = torch.zeros(1, 16, 8, 8, dtype=torch.float64), torch.zeros(1, 1, 128, 128, dtype=torch.float64)
    other = masks.clone()
    other[:, :, 64:80, 64:80] = 10
    with torch.no_grad():
        apart = (encoder(image, masks) - encoder(image, other)).abs().amax(-1).view(8, 8)
    row, column = divmod(int(apart.argmax()), 8)
    assert abs(row - 4) <= 1 and abs(column - 4) <= 1  # convolutions reach into the next
    assert apart[:3].max() < 1e-3 * apart.max() and apart[:, :3].max() < 1e-3 * apart.max()

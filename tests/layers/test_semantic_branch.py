"""The semantic branch of Panoptic FPN. Axes: B, C, E, H, W."""

import pytest
import torch
import torch.nn.functional as F

from segwright.core.errors import SettingError
from segwright.layers.semantic_branch import SemanticBranch, check_widths


def slow_twin(branch: SemanticBranch, maps, doublings, *, align_corners: bool) -> torch.Tensor:
    """Each level on its own, up to the size of the finest, and only then the sum, as in the paper."""
    total = 0
    for x, level, count in zip(maps, branch.levels, doublings, strict=True):
        for block in level:
            x = block(x)
            if count:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=align_corners)
        total = total + x
    return total


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("strides", "doublings"), [((4, 8, 16, 32), (0, 1, 2, 3)), ((4, 8, 8, 8), (0, 1, 1, 1)), ((4, 4), (0, 0)), ((4,), (0,))]
)
def test_equals_its_slow_twin(strides, doublings, align_corners):
    torch.manual_seed(0)
    branch = SemanticBranch(strides, 5, 32, align_corners=align_corners).double()
    assert [len(level) for level in branch.levels] == [max(count, 1) for count in doublings]
    maps = [torch.randn(2, 5, 96 // stride, 160 // stride, dtype=torch.float64) for stride in strides]
    wanted = slow_twin(branch, maps, doublings, align_corners=align_corners)
    torch.testing.assert_close(branch(maps), wanted, rtol=1e-10, atol=1e-10)


def test_the_deepest_map_may_have_channels_more():
    branch = SemanticBranch((4, 8, 16), 5, 32, align_corners=False, extra=2)
    assert [level[0][0].in_channels for level in branch.levels] == [5, 5, 7]
    assert branch([torch.randn(1, count, 64 // 2**n, 32 // 2**n) for n, count in enumerate((5, 5, 7))]).shape == (1, 32, 64, 32)


def test_by_hand_the_shifts_of_the_norms_add_up():
    """Convolutions of zeros leave the norms nothing but their shift: here 2, from each of two levels."""
    branch = SemanticBranch((4, 8), 1, 32, align_corners=False)
    for level in branch.levels:
        torch.nn.init.zeros_(level[0][0].weight)
        torch.nn.init.constant_(level[0][1].bias, 2)
    total = branch([torch.randn(1, 1, 8, 12), torch.randn(1, 1, 4, 6)])
    assert torch.equal(total, torch.full((1, 32, 8, 12), 4.0))


def test_refuses_widths_that_no_branch_has_and_the_remedy_works():
    with pytest.raises(SettingError, match="branch_width is 48; .* in 32 groups, so give a multiple of 32, such as 128"):
        check_widths(48, pyramid_width=16)
    with pytest.raises(SettingError, match="pyramid_width is 0; it must be 1 or more"):
        check_widths(128, pyramid_width=0)
    check_widths(128, pyramid_width=16)

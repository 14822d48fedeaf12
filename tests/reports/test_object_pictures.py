import numpy as np

from segwright.evaluation.tide_errors import MATCHED, MISSED, NO_OBJECT
from segwright.reports.object_pictures import fate_picture

COLORS = {MATCHED: (0, 200, 0), MISSED: (255, 0, 0)}


def test_by_hand():
    planes = np.zeros((2, 12, 12), int)
    planes[0, 2:10, 2:6], planes[0, 2:10, 6:11], planes[1, 11, 0] = 1, 2, 3
    picture = fate_picture(np.full((1, 12, 12), 120, np.uint8), planes, np.array([MATCHED, MISSED, NO_OBJECT]), COLORS)
    assert tuple(picture[2, 2]) == COLORS[MATCHED] and tuple(picture[2, 10]) == COLORS[MISSED]  # outlines are solid
    assert tuple(picture[0, 0]) == tuple(picture[11, 0]) == (123, 123, 123)  # 0.6 * 120 + 0.4 * 128: no object, no colour
    inside = picture[5, 8].astype(int)
    assert inside[0] > inside[1] and (picture[5, 4] != COLORS[MATCHED]).any()


def test_no_segments_and_void():
    planes = np.full((1, 3, 3), -1)
    assert (fate_picture(np.zeros((1, 3, 3), np.uint8), planes, np.zeros(0, int), COLORS) == 51).all()

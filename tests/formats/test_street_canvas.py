from dataclasses import replace

import numpy as np

from segwright.formats.synthetic.street_canvas import SAMPLES, Canvas, ground_bands
from segwright.formats.synthetic.street_world import BUILDING, CAR, CLASSES, HORIZON, ROAD, SKY, make_street

SHAPE = (40, 60)
STREET = replace(
    make_street(np.random.default_rng(0)),
    sun=0.0, camera_x=0.0, camera_y=1.0, focal=1.0, horizon=0.5, roll=0.0, haze=1e9, exposure=1.0, tint=(1.0, 1.0, 1.0),
)  # fmt: skip
CLASS_OF = np.arange(len(CLASSES))
RED, BLUE = np.array((200.0, 0, 0)), np.array((0, 0, 200.0))


def upright(x0, x1, y0, y1, z):
    return np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]])


def finish(canvas):
    return canvas.finish(CLASS_OF, np.random.default_rng(0))


# By hand


def test_a_square_lands_where_the_pinhole_says():
    canvas = Canvas(STREET, SHAPE, camera_z=5.0)
    canvas.paint(upright(0, 1, 1, 2, 11.0), RED, BUILDING)  # 6 m away; the focal length is 60 pixels: 10 pixels per metre
    image, owners = finish(canvas)
    rows, columns = np.nonzero(owners == BUILDING)
    assert (rows.min(), rows.max()) == (10, 20) and (columns.min(), columns.max()) == (30, 40)  # borders included
    assert image[15, 35, 0] > 150 > 60 > image[15, 35, 2]
    assert owners[0, 0] == SKY and set(np.unique(owners)) == {SKY, BUILDING}


def test_later_paint_covers_earlier():
    canvas = Canvas(STREET, SHAPE, 0.0)
    canvas.paint(upright(-9, 9, -9, 9, 10.0), RED, BUILDING)
    canvas.paint(np.stack([upright(-1, 0, 0, 1, 6.0), upright(1, 2, 0, 1, 6.0)]), BLUE, CAR)
    image, owners = finish(canvas)
    assert (owners == CAR).sum() > 150 and (owners == BUILDING).sum() + (owners == CAR).sum() == owners.size
    assert image[owners == CAR].mean(axis=0)[2] > 120 > 80 > image[owners == BUILDING].mean(axis=0)[2]


def test_what_lies_behind_the_camera_is_not_painted():
    canvas = Canvas(STREET, SHAPE, camera_z=50.0)
    canvas.paint(upright(-9, 9, -9, 9, 10.0), RED, BUILDING)
    canvas.paint(np.zeros((0, 4, 3)), RED, BUILDING)
    assert (finish(canvas)[1] == SKY).all()


def test_shadows_darken_the_ground_only():
    ground = np.array([[-90, 0, 1.0], [90, 0, 1], [90, 0, 150], [-90, 0, 150]])
    images = []
    for strength in (0.0, 0.6):
        canvas = Canvas(STREET, SHAPE, 0.0)
        canvas.paint(ground, RED, ROAD)
        canvas.paint(upright(0, 1, 0, 1, 6.0), RED, CAR)
        canvas.darken(ground, strength)
        images.append(finish(canvas))
    (bright, owners), (dark, same_owners) = images
    inner = owners == CAR
    inner[1:] &= owners[:-1] == CAR
    inner[:-1] &= owners[1:] == CAR
    assert np.array_equal(owners, same_owners)
    assert dark[owners == ROAD].mean() < 0.6 * bright[owners == ROAD].mean()
    assert abs(dark[inner].mean() - bright[inner].mean()) < 5


def test_the_ground_comes_in_pieces_from_far_to_near():
    pieces = ground_bands(7.0, (30.0, 10.0))
    assert pieces == [(37.0, 7.0 + HORIZON), (17.0, 37.0), (7.7, 17.0)]


# By a slow twin


def test_the_truth_is_one_of_the_samples_of_each_pixel():
    canvas = Canvas(STREET, SHAPE, 0.0)
    canvas.paint(np.array([[-2.0, 0.3, 7], [1.7, 0.5, 7], [0.2, 2.4, 9]]), RED, BUILDING)
    corners = canvas.polygons[0].reshape(-1, 3)
    paints = canvas._painted(corners, np.array([True]))
    assert paints.shape == (SHAPE[0] * SAMPLES, SHAPE[1] * SAMPLES)
    assert np.array_equal(finish(canvas)[1], np.where(paints[::SAMPLES, ::SAMPLES] == 1, BUILDING, SKY))

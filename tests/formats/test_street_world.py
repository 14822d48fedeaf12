import numpy as np
import pytest

from segwright.formats.synthetic.street_canvas import EDGE_OF_SKY, TOP_OF_SKY
from segwright.formats.synthetic.street_world import BUILDING, CAR, CLASSES, PEDESTRIAN, SKIES, Thing, make_street

STREETS = [make_street(np.random.default_rng(seed), length=30.0) for seed in range(25)]


# By hand


def test_a_thing_moves():
    assert Thing(CAR, 1, 2.0, 10.0, (0.5, -3.0), seed=0).place(2.0) == (3.0, 4.0)


def test_there_is_a_sky_and_a_colour_for_each():
    assert len(TOP_OF_SKY) == len(EDGE_OF_SKY) == SKIES
    assert len(CLASSES) == 9 and CLASSES.is_thing[CAR] and CLASSES.is_thing[PEDESTRIAN] and sum(CLASSES.is_thing) == 2


# By a law


@pytest.mark.parametrize("street", STREETS)
def test_nothing_stands_where_it_cannot(street):
    for lot in street.lots:
        assert abs(lot.x) >= street.road + street.pavement - 1e-9
    for part in street.furniture:
        assert street.road < abs(part.x) < street.road + street.pavement
    assert [thing.number for thing in street.things] == list(range(1, len(street.things) + 1))
    for side in (-1, 1):
        houses = sorted((lot.z, lot.z + lot.length) for lot in street.lots if lot.kind == BUILDING and lot.x * side > 0)
        assert all(end <= start + 1e-9 for (_, end), (start, _) in zip(houses[:-1], houses[1:], strict=True))


@pytest.mark.parametrize("street", STREETS)
def test_no_car_drives_through_another_of_its_lane(street):
    cars = [thing for thing in street.things if thing.kind == CAR]
    for time_s in (0.0, 3.0):
        for x, speed in {(car.x, car.speed_xz) for car in cars}:
            places = sorted(car.place(time_s)[1] for car in cars if (car.x, car.speed_xz) == (x, speed))
            assert (np.diff(places) > 4.6).all()  # the length of the longest


def test_a_seed_decides_everything():
    twin = make_street(np.random.default_rng(0), length=30.0)
    assert twin.things[0].seed == STREETS[0].things[0].seed and twin.haze == STREETS[0].haze != STREETS[1].haze

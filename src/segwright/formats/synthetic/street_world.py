"""A street as a world in metres: what stands and moves along it, and its light.

x goes to the right from the middle of the road, y up from the ground, z along the road; the camera looks along z.
"""

from dataclasses import dataclass

import numpy as np

from segwright.core import Classes

SKY, ROAD, PAVEMENT, GRASS, BUILDING, TREE, POLE, CAR, PEDESTRIAN = range(9)
CLASSES = Classes.of(
    ["sky", "road", "pavement", "grass", "building", "tree", "pole", "car", "pedestrian"],
    colors=[
        *((110, 170, 230), (110, 90, 130), (220, 120, 190), (150, 210, 120), (150, 110, 90)),
        *((50, 130, 60), (240, 210, 90), (60, 80, 220), (225, 50, 60)),
    ],
    is_thing=[False] * 7 + [True] * 2,
)
SIGHT = 75.0  # metres up to which single things are seen; beyond they are smaller than a few pixels
HORIZON = 160.0  # metres to where the ground ends
BEHIND = 20.0  # metres behind the start from which buildings stand, so that they reach into the view
CAR_PITCH = 6.2  # metres from one parked car to the next; a car is 3.9 to 4.6 m long
SKIES = 4  # of street_canvas.py


@dataclass(frozen=True, eq=False)
class Fixed:
    """A building, tree or pole: `kind` beside the road at x, from z to z + length; `seed` decides how it looks."""

    kind: int
    x: float
    z: float
    length: float
    seed: int


@dataclass(frozen=True, eq=False)
class Thing:
    """A car or a pedestrian that is at (x, z) when the drive begins; `number` is its instance id, 1, 2, ..."""

    kind: int
    number: int
    x: float
    z: float
    speed_xz: tuple[float, float]  # metres per second
    seed: int

    def place(self, time_s: float) -> tuple[float, float]:
        """Where it is after so many seconds: (x, z) in metres."""
        return self.x + self.speed_xz[0] * time_s, self.z + self.speed_xz[1] * time_s


@dataclass(frozen=True, eq=False)
class Street:
    """Everything that stands and moves along one street, its light, and the camera that is driven through it."""

    road: float  # half its width, metres
    pavement: float  # width, metres
    lots: tuple[Fixed, ...]  # buildings and trees beside the pavements, far to near
    furniture: tuple[Fixed, ...]  # trees and poles on the pavements
    things: tuple[Thing, ...]
    sky: int  # which of the skies
    sun: float  # -1 from the left to 1 from the right
    haze: float  # metres after which two thirds of a colour are lost in the air
    exposure: float
    tint: tuple[float, float, float]
    camera_x: float
    camera_y: float
    focal: float  # in widths of the image
    horizon: float  # in heights of the image, from the top
    roll: float  # radians
    seed: int


def make_street(generator: np.random.Generator, length: float = 0.0) -> Street:
    """A random street through which the camera can drive for `length` metres."""
    uniform = generator.uniform
    road, pavement = uniform(3.4, 5.5), uniform(1.6, 3.4)
    end = length + HORIZON / 2
    return Street(
        road=road,
        pavement=pavement,
        lots=tuple(sorted(_lots(generator, road + pavement, end), key=lambda part: -part.z)),
        furniture=tuple(_furniture(generator, road, pavement, length + SIGHT)),
        things=tuple(_things(generator, road, pavement, length + SIGHT)),
        sky=int(generator.integers(SKIES)),
        sun=uniform(-1, 1),
        haze=uniform(110, 320),
        exposure=uniform(0.85, 1.18),
        tint=(uniform(0.95, 1.06), 1.0, uniform(0.93, 1.06)),
        camera_x=road * uniform(0.30, 0.55),  # in the right lane
        camera_y=uniform(1.35, 1.9),
        focal=uniform(0.72, 1.05),
        horizon=uniform(0.42, 0.54),
        roll=float(np.clip(generator.normal(0, 0.012), -0.03, 0.03)),
        seed=_seed(generator),
    )


def _lots(generator: np.random.Generator, front: float, end: float) -> list[Fixed]:
    """Buildings and, in the gaps, trees on both sides."""
    parts = []
    urban = generator.uniform(0.35, 0.95)
    for side in (-1, 1):
        z = generator.uniform(-BEHIND, -4)
        while z < end:
            length = generator.uniform(8, 22)
            if generator.random() < urban:
                setback = generator.choice([0.0, 0.0, 0.4, 3.0])
                parts.append(Fixed(BUILDING, side * (front + setback), z, length, _seed(generator)))
                length += generator.choice([0.0, 0.0, 2.5])  # some houses stand wall to wall
            else:
                for _ in range(int(generator.integers(1, 5))):
                    x, place = side * (front + generator.uniform(1.5, 12)), z + generator.uniform(0, length)
                    parts.append(Fixed(TREE, x, place, 0.0, _seed(generator)))
            z += length
    return parts


def _furniture(generator: np.random.Generator, road: float, pavement: float, end: float) -> list[Fixed]:
    """Street trees, lamps (even seeds) and signs (odd seeds) on the pavements."""
    parts = []
    for side in (-1, 1):
        step, is_avenue = generator.uniform(14, 26), generator.random() < 0.45
        for z in np.arange(generator.uniform(2, step), end, step):
            parts.append(Fixed(POLE, side * (road + 0.35), z + generator.uniform(-1, 1), 0.0, _seed(generator) & ~1))
            if generator.random() < 0.4:
                parts.append(Fixed(POLE, side * (road + 0.4), z + generator.uniform(4, 9), 0.0, _seed(generator) | 1))
            if is_avenue:
                place = z + step / 2 + generator.uniform(-1, 1)
                parts.append(Fixed(TREE, side * (road + pavement * 0.75), place, 0.0, _seed(generator)))
    return parts


def _things(generator: np.random.Generator, road: float, pavement: float, end: float) -> list[Thing]:
    """Parked and moving cars, and pedestrians. Cars of one lane have one speed, so that none drives through another."""
    places: list[tuple[int, float, float, tuple[float, float]]] = []
    for side in (-1, 1):
        busy = generator.uniform(0.1, 0.75)
        for z in np.arange(generator.uniform(4, 9), end, CAR_PITCH):
            if generator.random() < busy:
                places.append((CAR, side * (road - 1.0), z + generator.uniform(-0.6, 0.6), (0.0, 0.0)))
    for lane, gap, speed in ((-0.30, (16, 40), -generator.uniform(6, 11)), (0.38, (25, 60), generator.uniform(5.5, 8))):
        for z in np.arange(generator.uniform(9, 40), end, generator.uniform(*gap)):
            places.append((CAR, road * lane, z + generator.uniform(0, 6), (0.0, speed)))
    for _ in range(int(generator.integers(6, 24) * end / SIGHT / 1.6)):
        side = generator.choice([-1, 1])
        x = side * (road + generator.uniform(0.7, max(0.8, pavement - 0.3)))
        z, walk = generator.uniform(4, end), generator.uniform(0.6, 1.6)
        if generator.random() < 0.15:  # crosses the road
            places.append((PEDESTRIAN, x * 0.4, z, (-side * walk, 0.0)))
        else:
            places.append((PEDESTRIAN, x, z, (0.0, walk * generator.choice([-1, 1]))))
    return [
        Thing(kind, number, float(x), float(z), (float(speed[0]), float(speed[1])), _seed(generator))
        for number, (kind, x, z, speed) in enumerate(places, start=1)
    ]


def _seed(generator: np.random.Generator) -> int:
    return int(generator.integers(2**31))

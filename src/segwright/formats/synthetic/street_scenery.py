"""What a street looks like: the painting of ground, buildings, trees, poles, cars and pedestrians on a canvas.

Corners of polygons are (x, y, z) in metres, see street_world.py. Widths, heights and colours are those of European streets.
"""

import numpy as np

from segwright.core import Sample, Segmentation
from segwright.formats.synthetic.street_canvas import NEAR, Canvas, ground_bands
from segwright.formats.synthetic.street_world import (
    BUILDING,
    CAR,
    CLASSES,
    GRASS,
    HORIZON,
    PAVEMENT,
    POLE,
    ROAD,
    SIGHT,
    TREE,
    Fixed,
    Street,
    Thing,
)

FRAME_S = 0.1  # seconds between two frames
DRIVE_SPEED = 6.0  # metres per second
STEP_S = 1.1  # seconds of two steps of a pedestrian
PLAIN = 40.0  # metres from which on small parts are left out


def _colors(*rgb: tuple[float, float, float]) -> np.ndarray:
    """RGB colours, float64 (N, 3)."""
    return np.array(rgb, dtype=float)


PAINTWORK = _colors(
    *((178, 34, 40), (34, 62, 130), (232, 232, 230), (30, 31, 34), (150, 155, 162)),
    *((96, 102, 110), (206, 170, 60), (30, 92, 66), (120, 50, 30), (205, 205, 210)),
)
CLOTHES = _colors((190, 50, 45), (40, 70, 140), (235, 190, 60), (60, 60, 66), (225, 225, 220), (70, 120, 80), (130, 70, 120))
TROUSERS = _colors((40, 48, 80), (50, 48, 46), (90, 84, 70), (28, 28, 32), (110, 90, 70))
SKIN = _colors((236, 190, 160), (200, 150, 115), (140, 95, 70), (95, 62, 46))
HAIR, BARK, LAMP, POST, GLASS = _colors((60, 44, 32), (74, 58, 44), (92, 94, 96), (150, 152, 154), (70, 84, 100))
FACADES = _colors(
    *((176, 112, 88), (200, 178, 142), (160, 152, 146), (214, 200, 180), (138, 86, 70)),
    *((190, 160, 120), (120, 124, 134), (222, 214, 204), (172, 140, 110)),
)
ROOFS = _colors((110, 62, 50), (84, 80, 84), (130, 84, 66), (64, 62, 70))
LEAVES = _colors((74, 110, 44), (92, 124, 52), (58, 98, 50), (120, 126, 50), (150, 112, 44))
MEADOW, SLABS, SKYLINE, FOREST, MARKING = _colors(
    (92, 122, 60), (150, 146, 140), (150, 146, 150), (70, 92, 62), (215, 215, 205)
)
RED_SIGN, WHITE_SIGN, BLUE_SIGN, LAMP_GLASS = _colors((200, 40, 40), (238, 238, 232), (36, 82, 170), (210, 208, 190))
TYRE, BUMPER, PLATE, TAIL_LIGHT, HEADLIGHT, WINDSCREEN, REAR_WINDOW = _colors(
    *((23, 23, 25), (44, 44, 48), (226, 224, 200), (196, 26, 30), (250, 246, 220), (70, 82, 96), (46, 54, 64))
)

# A car from the side, with its boot to the left: (share of length, metres up).
OUTLINE = np.array(
    [[0.0, 0.32], [0.0, 0.80], [0.08, 0.92], [0.22, 1.42], [0.58, 1.45], [0.76, 0.96], [0.98, 0.78], [1.0, 0.32]]
)
PANES = np.array([[0.16, 0.95], [0.25, 1.34], [0.56, 1.36], [0.70, 0.97]])
WHEEL_AT, WHEEL_RADIUS = (0.20, 0.80), 0.33
NARROWING = 0.38  # of the cabin, half widths per metre above the shoulder, so that the roof is 0.8 as wide
# A person of height 1 without legs and arms: (across, up).
TRUNK = np.array([[-0.11, 0.48], [0.11, 0.48], [0.14, 0.79], [0.07, 0.84], [-0.07, 0.84], [-0.14, 0.79]])


def street_sample(key: str, street: Street, shape: tuple[int, ...], frame: int = 0) -> Sample:
    """The view (3, H, W) uint8 from the car in a frame of its drive, with its exact truth.

    Classes without objects are one segment each; cars and pedestrians are objects whose numbers stay through the drive.
    """
    time_s = frame * FRAME_S
    canvas = Canvas(street, shape, camera_z=time_s * DRIVE_SPEED)
    _paint_ground(canvas)
    for lot in street.lots:
        if lot.z + lot.length > canvas.camera_z + NEAR * 2 and lot.z < canvas.camera_z + HORIZON / 2:
            (_paint_building if lot.kind == BUILDING else _paint_tree)(canvas, lot)
    standing: list[tuple[float, float, Fixed | Thing]] = [(part.x, part.z, part) for part in street.furniture]
    moving: list[tuple[float, float, Fixed | Thing]] = [(*thing.place(time_s), thing) for thing in street.things]
    for x, z, part in sorted(standing + moving, key=lambda seen: -seen[1]):
        if canvas.camera_z + NEAR * 2 < z < canvas.camera_z + SIGHT:
            _paint_part(canvas, part, x, z, time_s)
    class_of = np.array([*range(len(CLASSES)), *(thing.kind for thing in street.things)], dtype=np.int32)
    number_of = np.array([0] * len(CLASSES) + [thing.number for thing in street.things], dtype=np.int32)
    image, owners = canvas.finish(class_of, np.random.default_rng([street.seed, frame]))
    present = np.flatnonzero(np.bincount(owners.ravel(), minlength=len(class_of)))
    segment_of = np.zeros(len(class_of), dtype=np.int32)
    segment_of[present] = np.arange(1, len(present) + 1)
    truth = Segmentation.panoptic(segment_of[owners], class_of[present], number_of[present], classes=CLASSES)
    return Sample.of(key, np.ascontiguousarray(image.transpose(2, 0, 1)), truth)


def _paint_part(canvas: Canvas, part: Fixed | Thing, x: float, z: float, time_s: float) -> None:
    if isinstance(part, Fixed):
        (_paint_tree if part.kind == TREE else _paint_pole)(canvas, part)
    elif part.kind == CAR:
        _paint_car(canvas, part, x, z)
    else:
        _paint_pedestrian(canvas, part, x, z, time_s)


def _owner(thing: Thing) -> int:
    return len(CLASSES) + thing.number - 1


def _light(street: Street, side: float) -> float:
    """Brightness of a wall that looks to the left (-1), to the camera (0) or to the right (1)."""
    return 0.86 + 0.22 * street.sun * side


def _flat(x0: float, x1: float, z0: float, z1: float) -> np.ndarray:
    """A rectangle (4, 3) on the ground."""
    return np.array([[x0, 0, z0], [x1, 0, z0], [x1, 0, z1], [x0, 0, z1]])


def _upright(x0: float, x1: float, y0: float, y1: float, z: float) -> np.ndarray:
    """A rectangle (4, 3) that faces the camera."""
    return np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]])


def _wall(x: float, y0: float, y1: float, z0: float, z1: float) -> np.ndarray:
    """A rectangle (4, 3) along the road."""
    return np.array([[x, y0, z0], [x, y0, z1], [x, y1, z1], [x, y1, z0]])


def _ring(corners: int) -> np.ndarray:
    angle = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([np.cos(angle), np.sin(angle), np.zeros(corners)], axis=1)


RING = _ring(10)


def _paint_ground(canvas: Canvas) -> None:
    street, z = canvas.street, canvas.camera_z
    look = np.random.default_rng([street.seed, 2])
    far = z + HORIZON
    _paint_skyline(canvas, far, look)
    meadow = MEADOW * look.uniform(0.8, 1.2, 3)
    for z0, z1 in ground_bands(z, (18.0, 6.0)):
        canvas.paint(_flat(-HORIZON * 2, HORIZON * 2, z0, z1), meadow, GRASS)
    grey, slabs = np.full(3, look.uniform(70, 112)) + (0, 0, 4), SLABS * look.uniform(0.85, 1.15)
    for z0, z1 in ground_bands(z, (35.0, 16.0, 8.0)):
        for edge in (-street.road, street.road):
            outer = edge + np.sign(edge) * street.pavement
            canvas.paint(_flat(edge, outer, z0, z1), slabs, PAVEMENT)
            canvas.paint(_flat(edge, edge + np.sign(edge) * 0.18, z0, z1), slabs * 1.18, PAVEMENT)  # the kerb
        canvas.paint(_flat(-street.road, street.road, z0, z1), grey, ROAD)
    for x, wide, start, long, tone in look.uniform((-0.9, 0.4, 0, 1, 0.8), (0.5, 2.0, 90, 7, 1.12), (14, 5)):  # repairs
        x0, x1 = np.clip((x * street.road, (x + wide) * street.road), -street.road, street.road)
        canvas.paint(_flat(x0, x1, start, start + long), grey * tone, ROAD)
    starts = np.arange(np.floor(z / 6) * 6, z + SIGHT, 6.0)  # a dash of 3 m every 6 m
    dashes = [_flat(-0.07, 0.07, max(start, z + NEAR), start + 3) for start in starts if start + 3 > z + NEAR]
    canvas.paint(np.array(dashes), MARKING, ROAD)
    if look.random() < 0.35:
        crossing, stripes = look.uniform(14, 34), np.arange(-street.road + 0.5, street.road - 0.5, 1.0)
        canvas.paint(np.array([_flat(x, x + 0.5, crossing, crossing + 3) for x in stripes]), MARKING, ROAD)


def _paint_skyline(canvas: Canvas, z: float, look: np.random.Generator) -> None:
    """A town and a wood at the horizon."""
    edges = np.sort(look.uniform(-1.2, 1.2, 24)) * HORIZON
    roofs = look.uniform(4, 20, 23)
    houses = [_upright(x0, x1, -2, y, z) for x0, x1, y in zip(edges[:-1], edges[1:], roofs, strict=True)]
    canvas.paint(np.array(houses), SKYLINE * look.uniform(0.85, 1.1), BUILDING)
    x = np.linspace(-1.2, 1.2, 40) * HORIZON
    tops = np.cumsum(look.normal(0, 0.9, 40))
    ridge = np.stack([x, 3.0 + 0.6 * (tops - tops.min()), np.full(40, z)], axis=1)
    canvas.paint(np.vstack([ridge, [[x[-1], -2, z], [x[0], -2, z]]]), FOREST, TREE)


def _paint_building(canvas: Canvas, part: Fixed) -> None:
    street, x0 = canvas.street, part.x
    look = np.random.default_rng(part.seed)
    side = float(np.sign(x0))
    height, x1 = look.uniform(5.5, 17.0), x0 + side * look.uniform(8, 13)
    color = FACADES[look.integers(len(FACADES))] * look.uniform(0.82, 1.1)
    along_light, front_light = _light(street, -side), _light(street, 0)
    z0, z1 = part.z, part.z + part.length
    if street.sun * side > 0.2:  # the sun stands behind it
        reach = x0 - side * min(height * 0.45 * abs(street.sun) + 1.0, 7.0)
        canvas.darken(_flat(x0, reach, max(z0, canvas.camera_z + NEAR), z1), 0.38)
    roof, ridge, has_gable = ROOFS[look.integers(len(ROOFS))], height + look.uniform(1.8, 3.5), look.random() < 0.5
    if has_gable:
        middle = (x0 + x1) / 2
        slope = np.array([[x0, height, z0], [x0, height, z1], [middle, ridge, z1], [middle, ridge, z0]])
        canvas.paint(slope, roof * along_light, BUILDING)
        canvas.paint(np.array([[x0, height, z0], [x1, height, z0], [middle, ridge, z0]]), color * front_light * 0.92, BUILDING)
    canvas.paint(_upright(x0, x1, 0, height, z0), color * front_light, BUILDING)
    for start, stop in _pieces(z0, z1, canvas.camera_z):
        canvas.paint(_wall(x0, 0, height, start, stop), color * along_light, BUILDING)
    canvas.paint(_wall(x0, 0, 0.7, z0, z1), color * along_light * 0.72, BUILDING)
    canvas.paint(_wall(x0, height - 0.6, height, z0, z1), color * along_light * 1.12, BUILDING)
    spacing, glass = look.uniform(2.1, 3.2), GLASS * look.uniform(0.7, 1.25)
    along, up = _window_grid(part.length, height, spacing)
    across, high = _window_grid(abs(x1 - x0), height, spacing)
    walls = np.stack([np.full_like(along, x0), up, z0 + along], axis=-1)  # (N, 4, 3)
    ends = np.stack([x0 + side * across, high, np.full_like(across, z0)], axis=-1)
    for windows, light in ((walls, along_light), (ends, front_light)):
        tones = look.random(len(windows))
        tones[windows[..., 2].min(axis=1) < canvas.camera_z + NEAR] = -1
        for low, high_tone, shine in ((0.0, 0.55, 0.8), (0.55, 0.9, 1.15), (0.9, 1.0, 2.1)):  # dark, mirrors the sky, curtain
            canvas.paint(windows[(tones >= low) & (tones < high_tone)], glass * shine * light, BUILDING)


def _pieces(z0: float, z1: float, camera_z: float) -> list[tuple[float, float]]:
    """A wall from z0 to z1 in pieces whose haze is about the same all over."""
    cuts = [z0, *(camera_z + cut for cut in (14.0, 34.0) if z0 < camera_z + cut < z1), z1]
    return list(zip(cuts[:-1], cuts[1:], strict=True))


def _window_grid(length: float, height: float, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners of windows on a wall, along it and up it, each float (N, 4); floors are 3 m high."""
    columns = np.arange(spacing / 2, length - spacing / 3, spacing)
    floors = np.arange(1.0, height - 2.0, 3.0)
    along, up = np.tile(columns, len(floors))[:, None], np.repeat(floors, len(columns))[:, None]
    half = spacing * 0.24
    return along + np.array([-half, half, half, -half]), up + np.array([0.0, 0.0, 1.5, 1.5])


def _paint_tree(canvas: Canvas, part: Fixed) -> None:
    look = np.random.default_rng(part.seed)
    x, z, height = part.x, part.z, look.uniform(4.5, 9.5)
    color = LEAVES[look.integers(len(LEAVES))] * look.uniform(0.8, 1.2)
    width = height * look.uniform(0.2, 0.3)
    canvas.darken(_flat(x - width, x + width, z - 0.8, z + 0.8), 0.35)
    canvas.paint(_upright(x - 0.13, x + 0.13, 0, height * 0.6, z), BARK, TREE)
    if look.random() < 0.18:  # a conifer
        for step in (0.15, 0.37, 0.59, 0.8):
            half = width * 1.1 * (1.05 - step)
            tip = np.array([[x - half, height * step, z], [x + half, height * step, z], [x, height * (step + 0.32), z]])
            canvas.paint(tip, color * (0.6 + 0.3 * step), TREE)
        return
    clusters = 14 if z - canvas.camera_z < PLAIN else 7
    angle, out = look.uniform(0, 2 * np.pi, 14)[:clusters], np.sqrt(look.random(14))[:clusters]
    across, up = np.cos(angle) * out, np.sin(angle) * out
    centres = np.stack([x + across * width, height * (0.66 + 0.27 * up), np.full(clusters, z)], axis=1)
    lit = 0.82 + 0.32 * up + 0.12 * canvas.street.sun * across
    leaves = centres[:, None] + RING * (width * 0.47)
    for index in np.argsort(up):  # low leaves first, light ones on top
        canvas.paint(leaves[index], color * lit[index], TREE)


def _paint_pole(canvas: Canvas, part: Fixed) -> None:
    x, z, inward = part.x, part.z, -float(np.sign(part.x))
    if part.seed % 2 == 0:  # a lamp
        arm = x + inward * 1.5
        canvas.paint(_upright(x - 0.07, x + 0.07, 0, 6.2, z), LAMP, POLE)
        canvas.paint(_upright(min(x, arm), max(x, arm), 6.05, 6.2, z), LAMP, POLE)
        canvas.paint(_upright(arm - 0.3, arm + 0.3, 5.93, 6.1, z), LAMP_GLASS, POLE)
        return
    canvas.paint(_upright(x - 0.045, x + 0.045, 0, 2.5, z), POST, POLE)
    shape = part.seed // 2 % 3
    if shape == 0:
        canvas.paint(RING * 0.36 + (x, 2.45, z), RED_SIGN, POLE)
        canvas.paint(RING * 0.24 + (x, 2.45, z), WHITE_SIGN, POLE)
    elif shape == 1:
        canvas.paint(np.array([[x - 0.42, 2.1, z], [x + 0.42, 2.1, z], [x, 2.85, z]]), RED_SIGN, POLE)
        canvas.paint(np.array([[x - 0.24, 2.2, z], [x + 0.24, 2.2, z], [x, 2.62, z]]), WHITE_SIGN, POLE)
    else:
        canvas.paint(_upright(x - 0.35, x + 0.35, 2.1, 2.8, z), BLUE_SIGN, POLE)


def _paint_car(canvas: Canvas, thing: Thing, x: float, z: float) -> None:
    street, owner = canvas.street, _owner(thing)
    look = np.random.default_rng(thing.seed)
    color = PAINTWORK[look.integers(len(PAINTWORK))] * look.uniform(0.85, 1.1)
    size, tall = look.uniform(0.92, 1.1), look.uniform(0.95, 1.2)
    half, length = 0.88 * size, 4.2 * size
    comes = thing.speed_xz[1] < 0 or (thing.speed_xz[1] == 0 and thing.x < 0)  # towards the camera
    canvas.darken(_flat(x - half - 0.1, x + half + 0.1, z - 0.25, z + length + 0.2), 0.55)
    inward = float(np.sign(x - street.camera_x))
    if abs(x - street.camera_x) > half:  # one side is seen

        def placed(side_view: np.ndarray) -> np.ndarray:
            along = 1 - side_view[:, 0] if comes else side_view[:, 0]
            lean = np.maximum(side_view[:, 1] - 0.92, 0) * NARROWING * half  # the windows lean inwards
            return np.stack([x + inward * (lean - half), side_view[:, 1] * tall, z + along * length], axis=1)

        wheel = RING[:, :2] * (WHEEL_RADIUS / length, WHEEL_RADIUS / tall) + (0, WHEEL_RADIUS / tall)
        canvas.paint(placed(OUTLINE), color * _light(street, -inward) * 0.95, owner)
        canvas.paint(placed(PANES), REAR_WINDOW, owner)
        canvas.paint(np.array([placed(wheel + (place, 0)) for place in WHEEL_AT]), TYRE, owner)
    front_light = _light(street, 0)
    roof_z = z + (0.42 if comes else 0.22) * length
    lid_z = z + (0.24 if comes else 0.08) * length  # where bonnet or boot end
    wide = np.array([-half, half, half, -half])
    for low, high, low_z, high_z, narrow, paint in (
        (0.90, 0.93, z, lid_z, 1.0, color * front_light * 1.12),  # bonnet or boot
        (0.93, 1.44, lid_z, roof_z, 0.82, color * front_light * 1.05),
        (0.98, 1.36, lid_z + 0.04, roof_z, 0.70, WINDSCREEN if comes else REAR_WINDOW),
    ):
        ups, deep = np.array([low, low, high, high]) * tall, np.array([low_z, low_z, high_z, high_z])
        base = 0.94 if narrow < 0.8 else 1.0
        canvas.paint(np.stack([x + wide * (base, base, narrow, narrow), ups, deep], axis=1), paint, owner)
    canvas.paint(_upright(x - half, x + half, 0.30, 0.92 * tall, z), color * front_light, owner)
    canvas.paint(np.array([_upright(x + s * half * 0.92, x + s * half * 0.62, 0, 0.31, z) for s in (-1, 1)]), TYRE, owner)
    if z - canvas.camera_z > PLAIN:
        return
    canvas.paint(_upright(x - half * 0.98, x + half * 0.98, 0.26, 0.46 * tall, z), BUMPER, owner)
    lamps = [_upright(x + s * half * 0.92, x + s * half * 0.58, 0.80 * tall - 0.14, 0.80 * tall + 0.04, z) for s in (-1, 1)]
    canvas.paint(np.array(lamps), HEADLIGHT if comes else TAIL_LIGHT, owner)
    canvas.paint(_upright(x - 0.26, x + 0.26, 0.5 * tall, 0.5 * tall + 0.13, z), PLATE, owner)


def _paint_pedestrian(canvas: Canvas, thing: Thing, x: float, z: float, time_s: float) -> None:
    owner, look = _owner(thing), np.random.default_rng(thing.seed)
    tall = look.uniform(1.5, 1.92)
    clothes, trousers, skin = (table[look.integers(len(table))] for table in (CLOTHES, TROUSERS, SKIN))
    hair, swing = HAIR * look.uniform(0.4, 2.2), np.sin(2 * np.pi * (time_s / STEP_S + look.random()))
    stride = swing * (0.30 if thing.speed_xz[0] else 0.16)  # metres; seen from the side it is longer
    canvas.darken(_flat(x - 0.3, x + 0.3, z - 0.25, z + 0.25), 0.45)
    hip, neck = tall * 0.50, tall * 0.84
    legs, arms = [], []
    for side in (-1, 1):
        foot, hand, shoulder = x + side * (0.09 + stride / 2), x + side * 0.30 - stride / 3, x + side * 0.22
        legs.append([[x + side * 0.16, hip, z], [x + side * 0.01, hip, z], [foot - 0.06, 0, z], [foot + 0.07, 0, z]])
        arms.append(
            [[shoulder - 0.05, neck, z], [shoulder + 0.06, neck, z], [hand + 0.05, hip, z], [hand - 0.05, hip, z]],
        )
    canvas.paint(np.array(legs[0]), trousers * 0.85, owner)
    canvas.paint(np.array(legs[1]), trousers, owner)
    for arm in arms:
        canvas.paint(np.array(arm), clothes * 0.82, owner)
    canvas.paint(np.column_stack([x + TRUNK[:, 0] * tall, TRUNK[:, 1] * tall, np.full(len(TRUNK), z)]), clothes, owner)
    canvas.paint(RING * (tall * 0.062, tall * 0.078, 1) + (x, neck + tall * 0.085, z), skin, owner)
    canvas.paint(RING * (tall * 0.064, tall * 0.054, 1) + (x, neck + tall * 0.118, z), hair, owner)

"""The one check of what goes into a network. Axes: B batch, C channels, *S spatial axes."""

from math import ceil

from torch import Tensor

from segwright.core.errors import ShapeError


def check_image(image: Tensor, *, channels: int, axes: int, divisors: tuple[int, ...]) -> None:
    """Refuse an image that is not (B, channels, *S) with `axes` spatial axes whose sides are multiples of `divisors`.

    Raises:
        ShapeError: says which of these it is, and what to do.
    """
    given = " x ".join(map(str, image.shape))
    if image.ndim != axes + 2:
        raise ShapeError(
            f"the batch is {given}, but this network needs {axes + 2} axes: batch, channels and {axes} spatial axes; "
            + ("add a batch axis with image[None]" if image.ndim == axes + 1 else f"build it for {image.ndim - 2} spatial axes")
        )
    if image.shape[1] != channels:
        raise ShapeError(
            f"the images have {image.shape[1]} channels, but this network was built for {channels}; "
            f"build it with in_channels={image.shape[1]}, or give it {channels} channels"
        )
    sides = image.shape[2:]
    if any(side % divisor or not side for side, divisor in zip(sides, divisors, strict=True)):
        wanted = [max(ceil(side / divisor), 1) * divisor for side, divisor in zip(sides, divisors, strict=True)]
        raise ShapeError(
            f"the images are {' x '.join(map(str, sides))}, but this network needs sides divisible by "
            f"{' x '.join(map(str, divisors)) if len({*divisors}) > 1 else divisors[0]}; "
            f"pad them to {' x '.join(map(str, wanted))}, for example with torch.nn.functional.pad"
        )

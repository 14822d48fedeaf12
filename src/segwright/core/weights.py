"""What is known of trained weights that somebody published, and of the images that they were trained with."""

from dataclasses import dataclass

PERMISSIVE = ("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause")  # an allow-list: what is not in it counts as unknown


@dataclass(frozen=True, kw_only=True)
class Intake:
    """How images reached a network in its training: RGB values of 0 to 255, minus `mean`, divided by `std`, per channel."""

    mean: tuple[float, ...] = (123.675, 116.28, 103.53)  # of ImageNet, which most networks are trained with
    std: tuple[float, ...] = (58.395, 57.12, 57.375)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A published file: trained weights of a `preset`, for whom to use, from where, and how well they did.

    `address` is where the file lies, "hf://OWNER/NAME/FILE" for one on the Hugging Face hub, "package://FOLDER/FILE" for one
    that comes with Segwright; `sha256` its first digits, or all of them, None where nobody published any. `licence` is that of
    the weights, "unstated" where the publisher names none. `classes` are their names in order, or their number where the names
    are the data set's own; 0 for a bare encoder. `score` is the published one with its data set, None where none was published.
    """

    preset: str
    address: str
    sha256: str | None = None
    licence: str
    trained_on: str
    classes: tuple[str, ...] | int
    intake: Intake = Intake()
    score: str | None = None

    @property
    def file(self) -> str:
        """The name of the file."""
        return self.address.rsplit("/", maxsplit=1)[-1]

    @property
    def num_classes(self) -> int:
        """How many classes the network of the file tells apart."""
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    @property
    def is_permissive(self) -> bool:
        """Whether its licence lets everybody use the weights for everything."""
        return is_permissive(self.licence)


def is_permissive(licence: str | None) -> bool:
    """Whether a licence is known to let everybody use a work for everything; a missing one is not."""
    return (licence or "").strip().lower() in PERMISSIVE

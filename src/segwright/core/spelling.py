"""How names are spelt: of files, samples and classes."""

import unicodedata


def composed(name: str) -> str:
    """A name with each accent in one character with its letter (NFC), so that names which look the same are the same.

    Some systems write them so, others, as macOS does, one after the other (NFD).
    """
    return unicodedata.normalize("NFC", name)

"""Networks that read texts, in folders as transformers saves them: found on this machine, or fetched if that is asked for."""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segwright.checkpoints.published_files import HUB_NAME, weights_folder
from segwright.core.errors import FormatError, MissingExtraError, UsageError
from segwright.inference.text_detector import KINDS, TextDetector

log = logging.getLogger(__name__)

TEXT_MODEL = "hf:google/owlv2-base-patch16-ensemble"  # Apache-2.0, 0.6 GB, the best of its size on rare classes of LVIS
NEEDED = {  # what a folder has to hold, one of each line; the first is what publishers mostly have
    "the kind of network": ("config.json",),
    "the weights": ("model.safetensors", "model.safetensors.index.json"),
    "how images are prepared": ("preprocessor_config.json", "processor_config.json"),
    "how texts are cut": ("tokenizer.json", "vocab.json", "vocab.txt"),
}
FETCHED = ("*.json", "*.safetensors", "vocab.txt", "merges.txt")  # no pickle, which could run code
SAM3_LICENCE = (
    "SAM 3 is used through transformers, under Meta's SAM License, which is no free one: it rules out fields of use, military "
    "ones among them; read it before you use what comes out"
)


def open_text_detector(name: str | Path = TEXT_MODEL, *, online: bool = False) -> TextDetector:
    """The network of a folder that transformers saved, or of hf:OWNER/NAME, which finds what texts name.

    That is looked for in Segwright's folder of weights, as OWNER--NAME, and in the cache of the Hugging Face hub; where it is
    in neither, it is fetched if `online`, and else nobody is asked. No code of the folder is run.

    Raises:
        MissingExtraError: transformers is not installed, or too old for this network.
        UsageError: it is not on this machine.
        FormatError: the folder lacks a file, or holds another network, or weights that do not fill it.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError(
            "to find what a text names, pip install 'segwright[text]', which brings transformers"
        ) from error
    folder = _folder_of(str(name), online=online)
    kind = _kind_of(folder)
    kinds = KINDS[kind]
    network = getattr(transformers, kinds.network, None)
    if network is None:
        raise MissingExtraError(
            f"{folder} is of the kind {kind}, and transformers {transformers.__version__} has no {kinds.network}; "
            "pip install -U transformers"
        )
    if kind == "sam3":
        log.warning(SAM3_LICENCE)
    with _quiet():
        try:
            loaded, facts = network.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
            processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # of whatever stands behind transformers, which changes with its version
            first = (str(error) or type(error).__name__).splitlines()[0]
            raise FormatError(f"{folder} cannot be opened by transformers ({first}); fetch its files again") from error
    wrong = [*facts["missing_keys"], *(str(key[0]) for key in facts["mismatched_keys"])]
    if wrong:
        raise FormatError(
            f"the weights in {folder} do not fill the network: {len(wrong)} tensors are missing or of another shape, such as "
            f"{sorted(wrong)[0]}; fetch its files again"
        )
    return TextDetector(loaded.eval(), processor, kind)


def _folder_of(name: str, *, online: bool) -> Path:
    """The folder of a network on this machine.

    Raises:
        UsageError: there is none.
    """
    if Path(name).is_dir():
        return Path(name)
    repository = name.removeprefix(HUB_NAME).strip("/")
    if not name.startswith(HUB_NAME) or not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UsageError(f"{name} is no folder; give one that holds {_list_of_files()}, or hf:OWNER/NAME, such as {TEXT_MODEL}")
    by_hand = weights_folder() / repository.replace("/", "--")
    if by_hand.is_dir():
        return by_hand
    import huggingface_hub  # a third of a second, which few need

    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(FETCHED), local_files_only=not online))
    except Exception as error:  # errors of whatever the hub's client stands on, which change with its version
        address = f"https://huggingface.co/{repository}/tree/main"
        how = f"download {_list_of_files()} from {address} by hand and put them into {by_hand}"
        if not online:
            raise UsageError(
                f"the network {name} is not on this machine; add --online (online=True in Python) to fetch it, or {how}"
            ) from error
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"the network {name} could not be fetched ({first}); connect to the internet, or {how}") from error


def _list_of_files() -> str:
    """The files of a network, for messages."""
    return ", ".join(names[0] for names in NEEDED.values()) + " (or vocab.json with merges.txt)"


def _kind_of(folder: Path) -> str:
    """The kind of the network in a folder, of those that `KINDS` has.

    Raises:
        FormatError: a file is missing, or the network is of another kind.
    """
    for what, names in NEEDED.items():
        if not any((folder / name).is_file() for name in names):
            raise FormatError(
                f"{folder} holds no {' or '.join(names)}, {what}; put the files of one network of transformers there: "
                f"{_list_of_files()}"
            )
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{folder / 'config.json'} cannot be read ({error}); fetch it again") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in KINDS:
        raise FormatError(
            f"{folder} holds a network of the kind {kind!r}, which finds nothing by text here; give one of {', '.join(KINDS)}"
        )
    return str(kind)


@contextmanager
def _quiet() -> Iterator[None]:
    """A context in which transformers draws no bars and reports nothing of its own; both are as before behind it."""
    from transformers.utils import logging as reports

    level, has_bars = reports.get_verbosity(), reports.is_progress_bar_enabled()
    reports.set_verbosity_error()
    reports.disable_progress_bar()
    try:
        yield
    finally:
        reports.set_verbosity(level)
        if has_bars:
            reports.enable_progress_bar()

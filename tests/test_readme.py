"""What the README and docs/panoptic.md show works: their commands and snippets run here, from the first to the last, each page
in one folder.

Every block fenced as `sh`, `console` (lines after `$ `) or `python` runs, each Python block in a process of its own. A comment
as the first line of a block changes that:

    # not run: REASON    for what a test cannot do, such as cloning
    # slow               only with `make test-all`, for a block that takes over a minute

The folder of the README holds `data/` with `images/` and `masks/`, `photos/` with images alone, and `photo.jpg`; that of the
other page is empty. A number of minutes that a block asks for becomes a second.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

README, PANOPTIC = (Path(__file__).parent.parent / name for name in ("README.md", "docs/panoptic.md"))
FENCE = re.compile(r"^```(?P<language>sh|console|python)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
MINUTES = re.compile(r"(\bminutes[= ])\d+(\.\d+)?")
SHORT = "0.02"  # minutes instead of those in the README: enough for some steps of a small network
LIMIT = 600  # seconds after which a block has hung; a shared machine may be slow


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text and the line of its fence."""

    language: str
    text: str
    line: int = 1

    @property
    def is_run(self) -> bool:
        first = self.text.partition("\n")[0]
        if first.startswith("# not run") and not re.fullmatch(r"# not run: \w.*", first):
            raise ValueError(f"line {self.line}: {first!r} gives no reason; write '# not run: REASON'")
        return not first.startswith("# not run")

    @property
    def is_slow(self) -> bool:
        return self.text.startswith("# slow\n")

    def script(self) -> str:
        """What is run: the text with fewer minutes, and of a console only the lines after `$ `."""
        text = MINUTES.sub(rf"\g<1>{SHORT}", self.text)
        if self.language == "console":
            lines = text.splitlines()
            text = "\n".join(line.removeprefix("$ ") for line in lines if line.startswith("$ "))
        return text


def blocks(text: str) -> list[Block]:
    """The blocks of a Markdown text that could be run."""
    return [Block(found["language"], found["text"], text.count("\n", 0, found.start()) + 1) for found in FENCE.finditer(text)]


def run(block: Block, folder: Path) -> str:
    """Run a block in a folder; its output. A command that fails ends the block and the test, with all that it wrote."""
    command = [sys.executable, "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
    binaries = str(Path(sys.executable).parent)  # so that `segwright` and `python` are those that are tested
    environment = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "XDG_CACHE_HOME": str(folder / ".cache")}
    done = subprocess.run(
        [*command, block.script()], cwd=folder, env=environment, text=True, timeout=LIMIT, check=False, capture_output=True
    )
    if done.returncode:
        pytest.fail(f"{block.script()}\nended with {done.returncode}:\n{done.stdout}{done.stderr}", pytrace=False)
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder that all blocks run in, with bright squares on a dark ground as data."""
    place = tmp_path_factory.mktemp("readme")
    generator = np.random.default_rng(0)
    for name in ("data/images", "data/masks", "photos"):
        (place / name).mkdir(parents=True)
    for index in range(8):
        mask = np.zeros((64, 64), np.uint8)
        top, left = generator.integers(0, 40, 2)
        mask[top : top + 24, left : left + 24] = 1
        image = np.clip(generator.normal(60 + 120 * mask[..., None], 20, (64, 64, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(place / f"data/images/{index:02}.png")
        Image.fromarray(mask).save(place / f"data/masks/{index:02}.png")
        if index < 2:
            Image.fromarray(image).save(place / f"photos/{index:02}.jpg")
    Image.fromarray(image).save(place / "photo.jpg")
    return place


@pytest.fixture(scope="module")
def empty_folder(tmp_path_factory):
    """The folder that all blocks of a page run in which makes its own data."""
    return tmp_path_factory.mktemp("page")


def cases(page: Path) -> list:
    """The blocks of a page as test cases, slow ones marked."""
    return [
        pytest.param(block, id=f"line {block.line}", marks=[pytest.mark.slow] if block.is_slow else [])
        for block in blocks(page.read_text(encoding="utf-8"))
        if block.is_run
    ]


@pytest.mark.parametrize("block", cases(README))
def test_block_of_the_readme(block, folder):
    run(block, folder)


@pytest.mark.parametrize("block", cases(PANOPTIC))
def test_block_of_the_page_on_panoptic_data(block, empty_folder):
    run(block, empty_folder)


# The mechanism itself

TEXT = """# A title

```sh
echo one
```

```sh
# not run: there is nothing to clone
git clone somewhere
```

```python
# slow
fit("data", minutes=10)
```

```toml
a = 1
```

```console
$ segwright fit data --minutes 10
mIoU 0.9
$ echo two
```
"""


def test_blocks_are_found_with_their_lines_and_marks():
    found = blocks(TEXT)
    assert [(block.language, block.line) for block in found] == [("sh", 3), ("sh", 7), ("python", 12), ("console", 21)]
    assert [block.is_run for block in found] == [True, False, True, True]
    assert [block.is_slow for block in found] == [False, False, True, False]


def test_minutes_are_shortened_and_output_is_no_command():
    found = blocks(TEXT)
    assert found[2].script() == f'# slow\nfit("data", minutes={SHORT})\n'
    assert found[3].script() == f"segwright fit data --minutes {SHORT}\necho two"


@pytest.mark.parametrize("first", ["# not run", "# not run:", "# not run: ", "# not run, slow"])
def test_a_block_is_not_left_out_without_a_reason(first):
    with pytest.raises(ValueError, match="gives no reason; write '# not run: REASON'"):
        _ = Block("sh", f"{first}\ntrue\n").is_run


@pytest.mark.parametrize(
    ("language", "good", "bad"),
    [
        ("sh", "ls data/images | wc -l\n", "false\necho this comes too late\n"),
        ("sh", "python -c 'import segwright'\n", "cat missing | wc -l\n"),
        ("console", "$ ls photos\n00.jpg\n", "$ ls nowhere\n"),
        ("python", "import segwright\n", "import segwright\nsegwright.Nothing\n"),
    ],
)
def test_a_block_can_pass_and_can_fail(language, good, bad, folder):
    run(Block(language, good), folder)
    with pytest.raises(pytest.fail.Exception, match="ended with [12]"):
        run(Block(language, bad), folder)


def test_blocks_share_their_folder(folder):
    run(Block("sh", "echo 42 > made\n"), folder)
    assert run(Block("python", "print(open('made').read())"), folder).strip() == "42"

"""What is installed with Segwright is under MIT, BSD, Apache, HPND or PSF licences, or an exception that is listed here."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
ALLOWED = re.compile(r"\b(MIT|0?BSD|FreeBSD|Apache|HPND|MIT-CMU|PSF|Python Software Foundation)\b", re.IGNORECASE)
PARTS = re.compile(r"\s+(?:AND|OR)\s+")  # of a licence that is an SPDX expression

# Exceptions, by package or by licence. None asks anything of a program that uses the package as it is.
PACKAGES = {
    "certifi": "MPL-2.0, a list of certificates that httpx and pyproj bring along: as hypothesis",
    "nvidia-": "CUDA, proprietary: torch pulls it on Linux, and loads it where there is such a graphics card",
    "cuda-toolkit": "names CUDA's packages, and holds nothing itself",
    "hypothesis": "MPL-2.0, tests only: its files stay under it, whatever else uses them",
    "pathspec": "MPL-2.0, for mypy only: as hypothesis",
    "tqdm": "MPL-2.0 and MIT, pulled by huggingface-hub: as hypothesis",
}
LICENCES = {
    "ISC": "MIT in other words",
    "Zlib": "asks only that changed sources say so",
    "CC0-1.0": "asks nothing",
    "BSL-1.0": "Boost: asks nothing of compiled code",
    "CNRI-Python": "the PSF's licence of before 2001",
}
# Shared libraries in the folders NAME.libs of wheels, which metadata do not speak of.
COPYLEFT = re.compile(
    r"lib(av(codec|device|filter|format|util)|sw(scale|resample)|x26[45]|heif|de265|fribidi|raqm|quadmath|g(fortran|omp))\b"
)
LIBRARIES = {
    "opencv_python_headless": "FFmpeg under LGPL-2.1, as files of their own that anyone can replace; Segwright opens no video",
    "numpy": "GCC's runtime, whose exception leaves programs free; libquadmath under LGPL-2.1, a file that can be replaced",
    "scipy": "as numpy",
    "imagecodecs": "GCC's runtime, as numpy",
}


def requirements(group: str) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {**project, **project["optional-dependencies"]}[group]


def installed_with(needed: Iterable[str]) -> Iterator[Distribution]:
    """All that requirements lead to on this machine; what is not installed here is passed over."""
    todo, seen = [(Requirement(entry), "") for entry in needed], set()
    while todo:
        need, extra = todo.pop()
        if need.name == "segwright" or (need.marker is not None and not need.marker.evaluate({"extra": extra})):
            continue
        try:
            found = distribution(need.name)
        except PackageNotFoundError:
            continue
        wanted = {(need.name, each) for each in ("", *need.extras)} - seen
        if (need.name, "") in wanted:
            yield found
        seen |= wanted
        todo += [(Requirement(entry), each) for _, each in wanted for entry in found.requires or []]


def licences(found: Distribution) -> list[str]:
    """What a distribution says of its licence: an SPDX expression, else classifiers, else the first line of a free text."""
    said = found.metadata
    if expression := said.get("License-Expression"):
        return PARTS.split(expression.strip("() "))
    classifiers = [each.split(" :: ")[-1] for each in said.get_all("Classifier", []) if each.startswith("License")]
    classifiers = [each for each in classifiers if each != "OSI Approved"]  # a heading, not a licence
    text = next(iter((said.get("License") or "").strip().splitlines()), "")
    return classifiers or [each for each in PARTS.split(text) if each]


def refused(name: str, said: list[str]) -> list[str]:
    """The licences of a package that are neither allowed nor an exception; a package that says none is refused."""
    if any(name.startswith(each) for each in PACKAGES):
        return []
    return [each for each in said or ["no licence"] if not ALLOWED.search(each) and each.split()[0] not in LICENCES]


def name_of(found: Distribution) -> str:
    return found.metadata["Name"].lower().replace("_", "-")


@pytest.mark.parametrize("group", ["dependencies", "geo", "medical", "dev", "bench"])
def test_all_that_is_installed_is_free(group):
    packages = {name_of(found): licences(found) for found in installed_with(requirements(group))}
    assert len(packages) > 1
    assert {name: wrong for name, said in packages.items() if (wrong := refused(name, said))} == {}


def test_the_core_holds_no_copyleft_but_what_is_listed():
    """Wheels may hold libraries of others, in a folder beside the package."""
    holders = set()
    for found in installed_with([*requirements("dependencies"), *requirements("geo"), *requirements("medical")]):
        for file in found.files or []:
            if ".libs" in file.parts[0] and COPYLEFT.match(file.name):
                holders.add(file.parts[0].removesuffix(".libs"))
    assert holders <= LIBRARIES.keys()


def test_each_exception_is_needed():
    everything = [entry for group in ("dependencies", "geo", "medical", "dev") for entry in requirements(group)]
    names = {name_of(found) for found in installed_with(everything)}
    said = {each.split()[0] for found in installed_with(everything) for each in licences(found)}
    linux = {"nvidia-", "cuda-toolkit"}  # of torch on Linux only
    assert {each for each in PACKAGES.keys() - linux if not any(name.startswith(each) for name in names)} == set()
    assert LICENCES.keys() - said == set()


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        (["LGPL-3.0-or-later"], ["LGPL-3.0-or-later"]),
        (["GNU General Public License v3 (GPLv3)"], ["GNU General Public License v3 (GPLv3)"]),
        (["MIT", "AGPL-3.0"], ["AGPL-3.0"]),
        (["MPL-2.0"], ["MPL-2.0"]),
        ([], ["no licence"]),
        (["BSD License"], []),
        (["Apache-2.0 WITH LLVM-exception", "PSF-2.0", "MIT-CMU", "0BSD"], []),
    ],
)
def test_copyleft_is_refused(said, wrong):
    assert refused("some-package", said) == wrong


def test_what_an_extra_of_a_package_pulls_is_found():
    names = {name_of(found) for found in installed_with(["segwright", "pytest"])}
    assert {"pytest", "pluggy"} <= names and "torch" not in names

"""The rules of the house, read from the source: DESIGN's floors, and that settings, tests, lengths and names are in order.

Each rule is a function from source files to the list of what breaks it. Each has a test that it holds for the repository and
one that it can fail.
"""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

import segwright

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "segwright"

# A part imports from lower floors only; DESIGN has the drawing. Folders that may come later have their floor already.
FLOORS = {
    "core": 0,
    "codecs": 1,
    "formats": 2,
    "metrics": 2,
    "transforms": 2,
    "layers": 2,
    "losses": 2,
    "optimisers": 2,
    "schedules": 2,
    "reports/html": 2,
    "conversion": 3,
    "data": 3,
    "encoders": 4,
    "models": 5,
    "decoding": 6,
    "tasks": 7,
    "plans": 8,
    "presets": 9,
    "checkpoints": 9,
    "inference": 10,
    "evaluation": 11,
    "training": 12,
    "planning": 13,
    "inspection": 14,
    "reports": 14,
    "workflow": 15,
    "comparison": 16,
    "cli": 17,
    "server": 17,
}

PUBLIC_NAMES = {
    *("Segmentation", "Sample", "Prompt", "Classes", "Dataset", "Plan", "Budget"),
    *("open_dataset", "plan", "train", "fit", "load", "predict", "evaluate", "compare", "measure", "list_models"),
}

UNTESTED: dict[str, str] = {}  # a module without a test file of its own, and the reason; best left empty

KERNELS_OF_CORE = "core/segment_kernels.py"
NAMED_PARTS = ("losses", "metrics", "tasks", "transforms")  # their classes are settings too, found by the name of the file
IMPORT_NAMES = {
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pydensecrf2": "pydensecrf",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
    "simpleitk": "SimpleITK",
}  # where they differ
COMMANDS = {"mypy", "pytest", "pytest_xdist", "ruff"}  # packages that the Makefile calls
ALONE = {"openvino": "inference/quiet_openvino.py"}  # packages that one file may import, since importing them sends something
MAX_FUNCTION, WARN_FILE, MAX_FILE = 60, 400, 600  # lines


@dataclass(frozen=True)
class Module:
    """One source file: its path below the package, such as "models/unet.py", and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of the file, each before what lies in it."""
        return list(ast.walk(self.tree))

    @property
    def part(self) -> str:
        """The folder below the package that has a floor, or the name of a module that lies in no folder."""
        return part_of(self.path.removesuffix(".py").split("/"))

    @property
    def name(self) -> str:
        return self.path.rsplit("/", maxsplit=1)[-1].removesuffix(".py")


def part_of(names: Sequence[str]) -> str:
    """The part of the package that a path below it belongs to: "reports/html" for ["reports", "html", "page"]."""
    return "/".join(names[:2]) if "/".join(names[:2]) in FLOORS else names[0]


def package() -> list[Module]:
    """All modules of Segwright."""
    return [Module(path.relative_to(SOURCE).as_posix(), path.read_text()) for path in sorted(SOURCE.rglob("*.py"))]


# Floors


def imported_parts(module: Module) -> Iterator[tuple[str, int]]:
    """Each part of the package that a module imports, at its top or inside a function, with the line."""
    package_path = ["segwright", *module.path.split("/")[:-1]]
    for node in module.nodes:
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package_path[: len(package_path) - node.level + 1], *([base] if base else [])])
            targets = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and called(node) in ("find", "names", "import_module"):
            targets = [argument.value for argument in node.args[:1] if is_text(argument)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "segwright":
            targets = [f"segwright.{node.attr}"]
        parts = []
        for target in targets:
            first, *rest = target.split(".")
            if first == "segwright" and rest and not rest[0].startswith("__"):  # such as __version__
                home = segwright.HOME.get(rest[0], target)
                parts.append(part_of(home.split(".")[1:]))
        yield from ((part, node.lineno) for part in dict.fromkeys(parts))


def called(node: ast.Call) -> str:
    """The last name of what is called: "find" for `find(...)` and for `core.find(...)`."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def chain(node: ast.AST) -> str:
    """A name with its attributes as text, such as "sys.stdout"; "" for any other expression."""
    if isinstance(node, ast.Attribute):
        before = chain(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def imports_up(modules: Sequence[Module]) -> list[str]:
    """Imports from a floor beside or above."""
    found = []
    for module in modules:
        if module.path == "__init__.py":  # its table HOME points everywhere, and loads nothing until it is asked
            continue
        if module.part not in FLOORS:
            found.append(f"{module.path} has no floor; give {module.part!r} one in FLOORS, or put the file into a folder")
            continue
        for part, line in imported_parts(module):
            if part not in FLOORS:
                found.append(f"{module.path}:{line} imports {part!r}, which has no floor")
            elif part != module.part and FLOORS[part] >= FLOORS[module.part]:
                found.append(f"{module.path}:{line} (floor {FLOORS[module.part]}) imports {part} (floor {FLOORS[part]})")
    return found


def heavy_core(modules: Sequence[Module]) -> list[str]:
    """Imports in core/ of anything but the standard library, numpy and, inside functions, Pillow.

    One file holds compiled loops, and is itself imported inside functions only: numba loads slowly.
    """
    found = []
    for module in modules:
        if module.part != "core":
            continue
        allowed = {*sys.stdlib_module_names, "segwright", "numpy", *(["numba"] if module.path == KERNELS_OF_CORE else [])}
        top = set(module.tree.body)
        for node in module.nodes:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or "segwright"] if isinstance(node, ast.ImportFrom) else []
            for name in (name.split(".")[0] for name in names):
                if name not in allowed and (name != "PIL" or node in top):
                    found.append(f"{module.path}:{node.lineno} imports {name}; core knows numpy only")
            if (
                node in top
                and Path(KERNELS_OF_CORE).stem in ast.unparse(node)
                and isinstance(node, ast.Import | ast.ImportFrom)
            ):
                found.append(
                    f"{module.path}:{node.lineno} imports compiled loops at its top; import them where they are called"
                )
    return found


# Settings


def frozen_fields(module: Module) -> Iterator[tuple[ast.ClassDef, list[str]]]:
    """The frozen dataclasses of a module with the names of their fields."""
    for node in module.nodes:
        if isinstance(node, ast.ClassDef) and any("frozen=True" in ast.unparse(item) for item in node.decorator_list):
            fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
            yield node, [item.target.id for item in fields if "ClassVar" not in ast.unparse(item.annotation)]


def read_names(module: Module) -> set[str]:
    """Attribute names that a module reads, as in `config.width` or `getattr(config, "width")`."""
    nodes = module.nodes
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    calls = [node for node in nodes if isinstance(node, ast.Call) and called(node) == "getattr" and len(node.args) > 1]
    return attributes | {node.args[1].value for node in calls if is_text(node.args[1])}


def is_setting(node: ast.ClassDef, module: Module) -> bool:
    """Part of a plan, a Config, the Budget, or the class that a file is called after and that does something."""
    is_namesake = node.name.lower() == module.name.replace("_", "")
    if module.part == "metrics":  # where some files hold values that metrics share
        is_namesake = is_namesake and any(isinstance(part, ast.FunctionDef) and part.name == "count" for part in node.body)
    return module.part == "plans" or node.name.endswith(("Config", "Budget")) or (module.part in NAMED_PARTS and is_namesake)


def unread_settings(modules: Sequence[Module]) -> list[str]:
    """Settings that nothing reads: each field of a plan, a budget, a Config, and of a loss, metric, task or transform.

    Plan and budget are read anywhere; any other setting is read in its own file, or it only looks as if it did something.
    """
    everywhere = set().union(*map(read_names, modules))
    found = []
    for module in modules:
        for node, fields in frozen_fields(module):
            if not is_setting(node, module):
                continue
            read = everywhere if module.part in ("plans", "planning") else read_names(module)
            found += [f"{module.path}: nothing reads {node.name}.{field}" for field in fields if field not in read]
    return found


# Tests, lengths, docstrings, names


def untested(modules: Sequence[Module], has_test: Callable[[str], bool]) -> list[str]:
    """Modules without their test file; `has_test` answers for a path such as "models/test_unet.py"."""
    found = []
    for module in modules:
        folder = f"{module.part}/" if "/" in module.path else ""
        wanted = f"{folder}test_{module.name.lstrip('_')}.py"  # a leading underscore says that a file is no kind
        if module.name != "__init__" and module.path not in UNTESTED and not has_test(wanted):
            found.append(f"{module.path} has no tests/{wanted}")
    return found


def functions(module: Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in module.nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def too_long(modules: Sequence[Module]) -> list[str]:
    """Functions and files past their length."""
    found = []
    for module in modules:
        lines = module.text.count("\n")
        if lines > MAX_FILE:
            found.append(f"{module.path} has {lines} lines, {MAX_FILE} are the limit; it holds two ideas")
        for node in functions(module):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION:
                found.append(
                    f"{module.path}:{node.lineno} {node.name} has {length} lines, {MAX_FUNCTION} are the limit; split it"
                )
    return found


def undocumented(modules: Sequence[Module]) -> list[str]:
    """Modules, and public functions, classes and methods, without a docstring.

    A method may go without where its class says it all: `forward`, and names with underscores around them.
    """
    found = []
    for module in modules:
        if not ast.get_docstring(module.tree):
            found.append(f"{module.path} has no docstring")
        classes = [node for node in module.tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
        nodes = [node for owner in (module.tree, *classes) for node in owner.body]
        for node in nodes:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if node.name != "forward" and not ast.get_docstring(node):
                found.append(f"{module.path}:{node.lineno} {node.name} has no docstring")
    return found


def vague_names(modules: Sequence[Module]) -> list[str]:
    """Files and folders whose name says nothing."""
    vague = re.compile(r"(^|[/_])(utils?|helpers?|common|misc)([/_.]|$)")
    return [f"{module.path}: name it after the one thing it holds" for module in modules if vague.search(module.path)]


def prints(modules: Sequence[Module]) -> list[str]:
    """Calls of print, and writes to stdout, outside the command line."""
    found = []
    for module in modules:
        for node in module.nodes:
            is_print = isinstance(node, ast.Call) and called(node) in ("print", "pprint") and isinstance(node.func, ast.Name)
            is_stdout = chain(node) == "sys.stdout"
            if module.part != "cli" and (is_print or is_stdout):
                found.append(f"{module.path}:{node.lineno} prints; the library logs")
    return found


def loose_json(modules: Sequence[Module]) -> list[str]:
    """JSON that may hold NaN, which is none to strict readers."""
    return [
        f"{module.path}:{node.lineno} writes JSON by itself; call json_text of core/strict_json.py"
        for module in modules
        for node in module.nodes
        if isinstance(node, ast.Attribute) and node.attr in ("dump", "dumps") and chain(node).startswith("json")
        if module.path != "core/strict_json.py"
    ]


def asserts(modules: Sequence[Module]) -> list[str]:
    """Statements that vanish under `python -O`; a check in the library is an error with a remedy."""
    return [
        f"{module.path}:{node.lineno} asserts; raise an error of core/errors.py"
        for module in modules
        for node in module.nodes
        if isinstance(node, ast.Assert)
    ]


def undeclared(modules: Sequence[Module], declared: set[str]) -> list[str]:
    """Imports of packages that the installation does not bring along."""
    found = []
    for module in modules:
        for node in module.nodes:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in (name.split(".")[0] for name in names):
                if name not in {*sys.stdlib_module_names, *declared, "segwright"}:
                    found.append(f"{module.path}:{node.lineno} imports {name}, which pyproject.toml does not name")
    return found


def declared_packages(*groups: str) -> set[str]:
    """The import names of what pyproject.toml declares under "dependencies", or under an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    entries = [entry for group in groups for entry in {**project, **project["optional-dependencies"]}[group]]
    names = {re.match(r"[\w.-]+", entry).group().lower() for entry in entries if not entry.startswith("segwright[")}
    return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}


def unused(modules: Sequence[Module], declared: set[str]) -> list[str]:
    """Declared packages that no module imports, by a statement or by name."""
    imported = set()
    for node in (node for module in modules for node in module.nodes):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(node.module or "")
        elif isinstance(node, ast.Call) and called(node) in ("importorskip", "import_module"):
            imported |= {argument.value for argument in node.args[:1] if is_text(argument)}
    gone = declared - {name.split(".")[0] for name in imported}
    return [f"pyproject.toml names {name}, which nothing imports; remove it there" for name in sorted(gone)]


def imported_elsewhere(modules: Sequence[Module]) -> list[str]:
    """Imports of packages that one file alone may import."""
    return [
        f"{module.path} imports {name}, which {ALONE[name]} does"
        for module in modules
        for name in ALONE
        if module.path != ALONE[name] and not unused([module], {name})
    ]


# Each [x] keeps a pattern from finding itself in this file.
OF_ONE_MACHINE = re.compile(
    r"(?<![\w./-])/(wor[k]|hom[e]|roo[t]|Use[r]s|op[t]|mn[t])/\w|fil[e]:///|[A-Z]:\\Use[r]s"
    r"|pypi\.or[g]/simple|pythonhoste[d]\.org|index-ur[l]|find-link[s]|trusted-hos[t]"
)


def machine_traces(files: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of committed texts, given as (path, text), with a path of one machine or the address of a package registry."""
    return [
        f"{path}:{number} holds {match.group()!r}"
        for path, text in files
        for number, line in enumerate(text.splitlines(), start=1)
        if (match := OF_ONE_MACHINE.search(line))
    ]


def committed_texts() -> list[tuple[str, str]]:
    """Path and text of every committed file that is text; of the package and its tests where there is no git."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    paths = [ROOT / name for name in listing.stdout.split("\0") if name] if listing.returncode == 0 else []
    texts = []
    for path in paths or [*SOURCE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *ROOT.glob("*.md")]:
        try:
            texts.append((path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")))
        except (UnicodeDecodeError, FileNotFoundError):  # a picture; a file that is deleted but not yet committed so
            continue
    return texts


# Names: where they may be read from, and what a top-level name says by its underscore


CONTRACT_NAMES = {  # looked up by name in each file of a folder, by the package itself or by the installed command
    "models": ("rename",),
    "encoders": ("rename",),
    "formats": ("matches", "read", "write", "Reader", "mask_path", "write_mask"),
    "metrics": ("State",),
    "cli": ("run", "main"),
}
FOUND_BY_FILE = ("losses", "metrics", "tasks", "transforms", "encoders", "models", "optimisers", "schedules", "data/samplers")


def dotted_name(module: Module) -> str:
    """ "segwright.models.unet" for "models/unet.py"; the folder's for its `__init__`."""
    return ".".join(["segwright", *module.path.removesuffix(".py").split("/")]).removesuffix(".__init__")


def camel_case(name: str) -> str:
    """The class that a file is called after: "WeightedSum" for "weighted_sum"."""
    return "".join(word.capitalize() for word in name.split("_"))


def definitions(module: Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Functions and classes at the top of a module, without names that Python itself looks for."""
    found = [node for node in module.tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    return [node for node in found if not node.name.startswith("__")]


def is_looked_up(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, module: Module) -> bool:
    """Whether a name is looked up in each file of a folder, so that several files may have it: a loss and a metric, say."""
    is_setting = node.name in ("Config", camel_case(module.name)) and module.path.startswith(FOUND_BY_FILE)
    return is_setting or node.name in CONTRACT_NAMES.get(module.part, ())


def is_contract(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, module: Module) -> bool:
    """Whether a name has a meaning of its own: in each file of a folder, as the class of a file, as what a folder's files
    have in common (a Protocol in its `__init__`), or in the whole package."""
    is_protocol = module.name == "__init__" and isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases)
    return is_looked_up(node, module) or is_protocol or dotted_name(module) == segwright.HOME.get(node.name)


def referred(module: Module, known: set[str]) -> set[tuple[str, str]]:
    """(module, name) of what a file uses of modules: imported, an attribute of one, or in a text "segwright.core.grid.Grid"."""
    home = dotted_name(module).split(".")[: None if module.name == "__init__" else -1]
    used, aliases = set(), {}
    for node in module.nodes:
        if isinstance(node, ast.Import):
            aliases |= {alias.asname or alias.name: alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*home[: len(home) - node.level + 1], node.module or ""]).strip(".") if node.level else node.module
            for alias in node.names:
                if f"{base}.{alias.name}" in known:
                    aliases[alias.asname or alias.name] = f"{base}.{alias.name}"
                used.add((base, alias.name))
        elif is_text(node) and node.value.startswith("segwright."):
            used.add(tuple(node.value.rsplit(".", maxsplit=1)))
    for node in module.nodes:
        if isinstance(node, ast.Attribute) and (base := aliases.get(chain(node.value))):
            used.add((base, node.attr))
        elif isinstance(node, ast.Call) and called(node) in ("setattr", "getattr") and any(map(is_text, node.args[1:2])):
            used.add((aliases.get(chain(node.args[0]), ""), node.args[1].value))
    return used


def spoken_of(node: ast.AST) -> set[str]:
    """The names in the signatures of a function, or of the public methods, and in the fields of a class."""
    if isinstance(node, ast.ClassDef):
        parts = [part for part in node.body if isinstance(part, ast.AnnAssign | ast.FunctionDef)]
        return set().union(*[spoken_of(part) for part in parts if not getattr(part, "name", "").startswith("_")])
    if isinstance(node, ast.AnnAssign):
        annotations = [node.annotation]
    else:
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        annotations = [*filter(None, [each.annotation for each in given]), *filter(None, [node.returns])]
    leaves = [leaf for annotation in annotations for leaf in ast.walk(annotation)]
    texts = [leaf.value for leaf in leaves if is_text(leaf)]
    return {leaf.id for leaf in leaves if isinstance(leaf, ast.Name)} | set(re.findall(r"\w+", " ".join(texts)))


def misleading_underscores(modules: Sequence[Module], readers: Sequence[Module]) -> list[str]:
    """Top-level functions and classes whose name does not tell whether another file uses them.

    One that no other file refers to is private, `_name`; one that is referred to elsewhere is public, `name`. A class that a
    public name of its module takes or gives is public with it: whoever calls that has one in hand. `readers` are the files
    beside the package: tests, benchmarks and the makers of the documentation.
    """
    known = {dotted_name(module) for module in modules}
    uses = {module.path: referred(module, known) for module in (*modules, *readers)}
    counts = Counter(use for used in uses.values() for use in used)
    found = []
    for module in modules:
        nodes = {node.name: node for node in definitions(module)}
        own, dotted = uses[module.path], dotted_name(module)
        elsewhere = {name for name in nodes if counts[dotted, name] > ((dotted, name) in own)}
        public = elsewhere | {name for name, node in nodes.items() if is_contract(node, module)}
        todo = list(public)
        while todo:
            classes = {name for name in spoken_of(nodes[todo.pop()]) if isinstance(nodes.get(name), ast.ClassDef)}
            todo += classes - public
            public |= classes
        for name, node in nodes.items():
            if name.startswith("_") and name in public:
                found.append(f"{module.path}:{node.lineno} {name} is used elsewhere; call it {name.lstrip('_')}")
            elif not name.startswith("_") and name not in public:
                found.append(f"{module.path}:{node.lineno} {name} is used nowhere else; call it _{name}")
    return found


def said_twice(modules: Sequence[Module]) -> list[str]:
    """Public functions and classes whose name another module has too: one idea has one place, two ideas have two names."""
    places: dict[str, list[str]] = {}
    for module in modules:
        for node in definitions(module):
            if not node.name.startswith("_") and not is_looked_up(node, module):
                places.setdefault(node.name, []).append(f"{module.path}:{node.lineno}")
    return [f"{name} is defined at {' and '.join(at)}" for name, at in sorted(places.items()) if len(at) > 1]


BESIDE = ("tests", "benchmarks", "docs")


def readers() -> list[Module]:
    """The files beside the package that use it, by their path in the repository."""
    paths = [path for folder in BESIDE for path in sorted((ROOT / folder).rglob("*.py"))]
    return [Module(f"../{path.relative_to(ROOT).as_posix()}", path.read_text(encoding="utf-8")) for path in paths]


# The repository keeps the rules. Each of its files is read and parsed once for all of them.


@pytest.fixture(scope="module")
def house() -> list[Module]:
    return package()


@pytest.fixture(scope="module")
def beside() -> list[Module]:
    return readers()


RULES = [
    imports_up,
    heavy_core,
    imported_elsewhere,
    unread_settings,
    too_long,
    undocumented,
    vague_names,
    prints,
    loose_json,
    asserts,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule, house):
    found = rule(house)
    assert not found, "\n" + "\n".join(found)


def test_names_tell_what_is_used_elsewhere(house, beside):
    found = misleading_underscores(house, beside)
    assert not found, "\n" + "\n".join(found)


def test_no_name_is_given_twice(house):
    found = said_twice(house)
    assert not found, "\n" + "\n".join(found)


def test_each_module_has_its_test(house):
    found = untested(house, lambda path: (ROOT / "tests" / path).is_file())
    assert not found, "\n" + "\n".join(found)
    gone = set(UNTESTED) - {module.path for module in house}
    assert not gone, f"UNTESTED names files that are gone: {gone}"


def test_each_imported_package_is_declared(house):
    found = undeclared(house, declared_packages("dependencies", "geo", "medical", "text", "zarr"))
    assert not found, "\n" + "\n".join(found)


def test_each_declared_package_is_imported(house, beside):
    folders = {folder: [module for module in beside if module.path.startswith(f"../{folder}")] for folder in BESIDE}
    found = unused(house, declared_packages("dependencies", "geo", "medical", "text", "zarr"))
    found += unused(folders["tests"], declared_packages("dev") - COMMANDS)
    found += unused(folders["benchmarks"], declared_packages("bench"))
    assert not found, "\n" + "\n".join(found)


def test_long_files_are_pointed_at(house):
    for module in house:
        if module.text.count("\n") > WARN_FILE:
            warnings.warn(f"{module.path} has more than {WARN_FILE} lines; does it hold two ideas?", stacklevel=1)


def test_public_names_are_the_recorded_ones():
    assert set(segwright.__all__) == PUBLIC_NAMES
    assert set(dir(segwright)) >= PUBLIC_NAMES


@pytest.mark.parametrize("name", sorted(PUBLIC_NAMES))
def test_each_public_name_is_there_and_documented(name):
    assert inspect.getdoc(getattr(segwright, name))


def test_an_unknown_public_name_is_answered_with_the_known():
    with pytest.raises(AttributeError, match="segwright has no 'Segmenter'; it offers Budget, Classes"):
        _ = segwright.Segmenter


def test_no_committed_text_tells_of_one_machine():
    found = machine_traces(committed_texts())
    assert not found, "\n" + "\n".join(found)


# Each rule can fail. The left column breaks it, the right one is the nearest text that does not.

CASES = [
    (imports_up, "core/grid.py", "import segwright.models.unet", "import segwright.core.errors"),
    (imports_up, "losses/dice.py", "from segwright.metrics import confusion", "from segwright.losses import focal"),
    (imports_up, "models/unet.py", "def f():\n    from segwright.training.loop import train", "import segwright.layers"),
    (imports_up, "models/unet.py", "from segwright import plans", "from segwright import layers"),
    (imports_up, "models/unet.py", "from segwright import Plan", "from segwright import Segmentation"),
    (imports_up, "models/unet.py", "import segwright\nsegwright.fit", "import segwright\nsegwright.__version__"),
    (imports_up, "models/unet.py", "from segwright import fit", "from segwright import __version__"),
    (imports_up, "models/unet.py", "from ..tasks import semantic", "from ..layers import attention"),
    (imports_up, "models/unet.py", "from .. import tasks", "from . import segformer"),
    (imports_up, "plans/plan.py", "find('segwright.training', kind)", "find('segwright.losses', kind)"),
    (imports_up, "inference/load.py", "import segwright.training.loop", "import segwright.checkpoints.model_file"),
    (imports_up, "cli/fit.py", "import segwright.server", "import segwright.training.fit"),
    (imports_up, "extras/thing.py", "", None),
    (imports_up, "models/unet.py", "import segwright.extras.thing", "import extras.thing"),
    (heavy_core, "core/grid.py", "import torch", "import numpy as np"),
    (heavy_core, "core/grid.py", "def f():\n    from torch.nn import Module", "def f():\n    from PIL import Image"),
    (heavy_core, "core/grid.py", "from PIL import Image", "from pathlib import Path"),
    (heavy_core, "core/grid.py", "from numba import njit", "from numpy import array"),
    (
        heavy_core,
        "core/grid.py",
        "from segwright.core import segment_kernels",
        "def f():\n    from segwright.core import segment_kernels",
    ),
    (heavy_core, KERNELS_OF_CORE, "import scipy", "from numba import njit"),
    (imported_elsewhere, "inference/engine.py", "def f():\n    import openvino", "import quiet_openvino"),
    (imported_elsewhere, "cli/models.py", "from openvino.runtime import Core", "from openvinos import Core"),
    (too_long, "models/a.py", "def f():\n" + "    x = 1\n" * 60, "def f():\n" + "    x = 1\n" * 59),
    (too_long, "models/a.py", "x = 1\n" * 601, "x = 1\n" * 600),
    (undocumented, "models/a.py", "x = 1", '"""Module."""\nx = 1'),
    (undocumented, "models/a.py", '"""Module."""\ndef f(): ...', '"""Module."""\ndef _f(): ...'),
    (undocumented, "models/a.py", '"""Module."""\nclass C: ...', '"""Module."""\nclass C:\n    """A class."""'),
    (
        undocumented,
        "models/a.py",
        '"""Module."""\nclass C:\n    """A class."""\n    def f(self): ...',
        '"""Module."""\nclass C:\n    """A class."""\n    def forward(self): ...',
    ),
    (vague_names, "core/image_utils.py", "", None),
    (vague_names, "helpers/image.py", "", None),
    (vague_names, "core/common.py", "", None),
    (prints, "models/a.py", "print(1)", "log.info(1)"),
    (prints, "models/a.py", "sys.stdout.write('a')", "sys.stderr.write('a')"),
    (loose_json, "formats/a.py", "json.dumps(x)", "json_text(x)"),
    (loose_json, "cli/a.py", "json_module.dump(x, file)", "json_module.loads(x)"),
    (asserts, "models/a.py", "assert x", "if not x:\n    raise ShapeError"),
]


@pytest.mark.parametrize(("rule", "path", "wrong", "right"), CASES)
def test_the_rule_can_fail(rule, path, wrong, right):
    assert len(rule([Module(path, wrong)])) == 1
    if right is not None:
        assert rule([Module(path, right)]) == []


@pytest.mark.parametrize("path", ["core/communication.py", "layers/miscible.py", "core/utility_pole.py"])
def test_a_name_that_only_begins_like_a_vague_one_is_fine(path):
    assert vague_names([Module(path, "")]) == []


def test_the_rule_about_prints_leaves_the_command_line_alone():
    assert prints([Module("cli/fit.py", "print(1)")]) == []


def test_the_rule_about_underscores_can_fail():
    public, private = Module("layers/a.py", "def f(): ..."), Module("layers/a.py", "def _f(): ...")
    assert misleading_underscores([public], []) == ["layers/a.py:1 f is used nowhere else; call it _f"]
    assert misleading_underscores([private], []) == []
    uses = [
        "from segwright.layers.a import {}",
        "def g():\n    from segwright.layers import a as b\n    return b.{}()",
        "import segwright.layers.a\nsegwright.layers.a.{}()",
        "monkeypatch.setattr('segwright.layers.a.{}', 1)",
        "from segwright.layers import a\nmonkeypatch.setattr(a, '{}', 1)",
    ]
    for use in uses:
        test, wrong = Module("../tests/test_a.py", use.format("f")), Module("../tests/test_a.py", use.format("_f"))
        assert misleading_underscores([public], [test]) == []
        assert misleading_underscores([private], [wrong]) == ["layers/a.py:1 _f is used elsewhere; call it f"]
    other = Module("layers/b.py", "from .a import f\ndef _g(): ...")
    assert misleading_underscores([public, other], []) == []


def test_what_is_looked_up_by_name_is_public():
    assert misleading_underscores([Module("losses/soft_dice.py", "class SoftDice: ...\nclass _Other: ...")], []) == []
    assert (
        misleading_underscores([Module("cli/new.py", "def run(): ..."), Module("formats/new.py", "def read(): ...")], []) == []
    )
    assert len(misleading_underscores([Module("layers/new.py", "def run(): ...")], [])) == 1


def test_a_class_that_a_public_name_gives_is_public():
    uses = [Module("../tests/test_a.py", "from segwright.layers.a import f")]
    text = "class {0}:\n    part: list[{1}]\nclass {1}: ...\ndef f() -> '{0} | None': ..."
    assert misleading_underscores([Module("layers/a.py", text.format("Given", "Part"))], uses) == []
    assert len(misleading_underscores([Module("layers/a.py", text.format("_Given", "_Part"))], uses)) == 2


def test_the_rule_about_names_given_twice_can_fail():
    one, other = Module("layers/a.py", "def f(): ..."), Module("losses/b.py", "class f: ...")
    assert said_twice([one, other]) == ["f is defined at layers/a.py:1 and losses/b.py:1"]
    assert said_twice([one, Module("losses/b.py", "def _f(): ...\ndef g():\n    def f(): ...")]) == []
    assert said_twice([Module("formats/a.py", "def read(): ..."), Module("formats/b.py", "def read(): ...")]) == []
    assert said_twice([Module(f"{folder}/edge.py", "class Edge: ...") for folder in ("losses", "metrics")]) == []
    assert len(said_twice([Module(f"{folder}/edge.py", "class Rim: ...") for folder in ("losses", "metrics")])) == 1


def test_a_floor_of_its_own_may_lie_in_a_folder_of_another():
    assert len(imports_up([Module("reports/html/page.py", "from segwright.reports import report")])) == 1
    assert imports_up([Module("reports/report.py", "from segwright.reports.html import page")]) == []
    assert imports_up([Module("evaluation/scores.py", "from segwright.reports.html.page import percent")]) == []


SETTING = "@dataclass(frozen=True, kw_only=True)\nclass {name}:\n    width: int = 32\n"


def test_the_rule_about_settings_can_fail():
    config = SETTING.format(name="Config")
    assert unread_settings([Module("models/a.py", config)]) == ["models/a.py: nothing reads Config.width"]
    assert unread_settings([Module("models/a.py", config + "    def build(self):\n        return Net(self.width)\n")]) == []
    assert unread_settings([Module("models/a.py", config + "def f(c):\n    return getattr(c, 'width')\n")]) == []
    assert unread_settings([Module("models/a.py", config + "def f(c):\n    c.width = 3\n")]) != []  # written, not read


def test_a_setting_read_in_another_file_counts_for_plan_and_budget_only():
    reader = Module("training/loop.py", "def f(plan):\n    return plan.width")
    assert unread_settings([Module("plans/plan.py", SETTING.format(name="Training")), reader]) == []
    assert unread_settings([Module("plans/plan.py", SETTING.format(name="Training"))]) != []
    assert unread_settings([Module("planning/budget.py", SETTING.format(name="Budget")), reader]) == []
    assert unread_settings([Module("losses/dice.py", SETTING.format(name="Dice")), reader]) != []


def test_a_frozen_value_that_is_no_setting_is_left_alone():
    assert unread_settings([Module("inference/predict_files.py", SETTING.format(name="Written"))]) == []
    assert unread_settings([Module("metrics/confusion.py", SETTING.format(name="State"))]) == []


def test_the_rule_about_tests_can_fail():
    def none_but_unet(path: str) -> bool:
        return path in ("models/test_unet.py", "plans/test_plan.py")

    modules = [
        Module(path, "") for path in ("models/unet.py", "models/__init__.py", "plans/plan.py", "models/new.py", "top.py")
    ]
    assert untested(modules, none_but_unet) == [
        "models/new.py has no tests/models/test_new.py",
        "top.py has no tests/test_top.py",
    ]


def test_the_rule_about_declared_packages_can_fail():
    assert len(undeclared([Module("core/a.py", "def f():\n    import skimage.io")], {"numpy"})) == 1
    assert undeclared([Module("core/a.py", "import os.path\nfrom numpy import linalg\nfrom . import b")], {"numpy"}) == []


def test_the_rule_about_unused_packages_can_fail():
    uses = ["import numpy.linalg", "from numpy import array", "def f():\n    pytest.importorskip('numpy.random')"]
    for use in uses:
        assert unused([Module("core/a.py", use)], {"numpy"}) == []
    assert len(unused([Module("core/a.py", "import numpydoc\nfrom .numpy import a")], {"numpy"})) == 1


@pytest.mark.parametrize(
    "line",
    [
        "data = '/hom" + "e/me/data'",
        "see /wor" + "k/main",
        "fil" + "e:///a/b",
        "pip install --index-ur" + "l https://example.org",
        "https://pypi.or" + "g/simple",
    ],
)
def test_the_rule_about_machines_can_fail(line):
    assert len(machine_traces([("README.md", f"fine\n{line}\n")])) == 1


@pytest.mark.parametrize("line", ["runs/work/a", "../shared/data", "https://example.org/home/page", "segwright fit photos"])
def test_the_rule_about_machines_leaves_other_paths_alone(line):
    assert machine_traces([("README.md", line)]) == []

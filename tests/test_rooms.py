"""The order of the rooms: which package may import which.

  python tests/test_rooms.py [CHECKOUT]

prints the import picture of a checkout in numbers: the boxes (packages and single modules), the
arrows between them, and the circles.
"""

import ast
import sys
from collections import defaultdict
from pathlib import Path

from jaxdeblur.models import PRESETS

ROOT = Path(__file__).parents[1]

# From the top of the house down: a room imports rooms below it, never one beside or above it.
ORDER = (
    ("train.py", "eval.py", "tools", "benchmarks", "__main__"),
    ("cli",),
    ("training",),
    ("evaluation",),
    ("config",),
    ("configs",),
    ("data", "fetching"),
    ("weights",),
    ("convert", "media", "restoring"),
    ("models",),
    ("convolutions",),
    ("workdir", "losses"),
    ("runtime", "metrics", "catalogue", "cards"),
    ("pixels",),
    ("errors",),
)


def boxes(root: Path) -> dict[str, list[Path]]:
    """The files of each box: of the package its rooms and single modules, and what is beside it."""
    found = defaultdict(list)
    for path in sorted((root / "jaxdeblur").rglob("*.py")):
        first = path.relative_to(root / "jaxdeblur").parts[0]
        if first != "configs":  # a link, see below
            found[first.removesuffix(".py")].append(path)
    for name in ("configs", "tools", "benchmarks"):
        if files := sorted((root / name).glob("*.py")):
            found[name] = files
    for script in ("train.py", "eval.py"):
        found[script] = [root / script]
    return dict(found)


def imported(path: Path, modules: set[str]) -> set[str]:
    """The modules of the package that a file imports, wherever in it, as `data.blur`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.partition(".")[0] == "configs":
                name = f"jaxdeblur.{name}"
            name = name.removeprefix("jaxdeblur.")
            while name and name not in modules:
                name = name.rpartition(".")[0]
            found |= {name} - {""}
    return found


def modules_of(root: Path) -> dict[str, Path]:
    """Every module of the package and of `configs`, as `data.blur`."""
    found = {}
    for box, files in boxes(root).items():
        for path in files if box not in ("tools", "benchmarks", "train.py", "eval.py") else ():
            folder = root if box == "configs" else root / "jaxdeblur"
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" and parts[1:] else parts)] = path
    return found


def arrows(root: Path) -> set[tuple[str, str]]:
    """Which box imports which."""
    modules = set(modules_of(root))
    return {
        (box, name.partition(".")[0])
        for box, files in boxes(root).items()
        for path in files
        for name in imported(path, modules)
        if name.partition(".")[0] not in (box, "__init__")
    }


def circles(edges: set[tuple[str, str]]) -> set[str]:
    """What can be reached from itself."""
    after = defaultdict(set)
    for start, end in edges:
        after[start].add(end)

    def reached(start):
        seen, waiting = set(), [start]
        while waiting:
            for end in after[waiting.pop()] - seen:
                seen.add(end)
                waiting.append(end)
        return seen

    return {start for start in list(after) if start in reached(start)}


def test_every_box_has_its_place():
    named = {box for floor in ORDER for box in floor}
    assert named == set(boxes(ROOT)) - {"__init__"}


def test_rooms_import_only_rooms_below():
    floor = {box: number for number, floor in enumerate(ORDER) for box in floor}
    upwards = {
        (start, end)
        for start, end in arrows(ROOT)
        if start != "__init__" and floor[start] >= floor[end]
    }
    assert not upwards


def test_no_module_imports_itself_by_a_detour():
    modules = modules_of(ROOT)
    # A package's own file gives its modules' names to others; that they import it is no detour.
    edges = {
        (name, other)
        for name, path in modules.items()
        for other in imported(path, set(modules))
        if other != name and not name.startswith(f"{other}.")
    }
    assert not circles(edges)


def test_models_hold_networks_alone():
    """Every file but those of layers and of what networks cost has the class of a preset."""
    files = {path.stem for path in (ROOT / "jaxdeblur" / "models").glob("*.py")}
    networks = {type(module).__module__.rpartition(".")[2] for module in PRESETS.values()}
    layers = {"layers", "joining", "mixing"}
    assert files == networks | layers | {"__init__", "cost", "variables"}


def test_the_package_has_the_configurations_of_the_top():
    assert (ROOT / "jaxdeblur" / "configs").samefile(ROOT / "configs")


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    edges = arrows(root)
    around = sorted(circles(edges))
    print(f"{len(boxes(root)) - 1} boxes, {len(edges)} arrows, {len(around)} boxes in circles")
    if around:
        print(", ".join(around))
    for box in sorted(boxes(root)):
        ends = sorted(end for start, end in edges if start == box)
        print(f"  {box:14} -> {', '.join(ends) or '(none)'}")


if __name__ == "__main__":
    main()

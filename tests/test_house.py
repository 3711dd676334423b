"""The house: which room may know which, and that no file has outgrown its job."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# each room knows itself and those above it in this list, which stand lower in the house
ROOMS = (
    *(
        "quickstart",
        "errors",
        "run",
        "models",
        "generation",
        "growth",
        "training",
        "evaluation",
        "results",
        "strategies",
        "module",
        "datamodule",
    ),
    *("report", "export", "harnesses", "callbacks", "align", "cli"),
)
OUTSIDE = ("isara_pl", "isara_pl.__main__")  # what people import, and the command
LONGEST = 400  # lines of a file


def modules() -> dict[str, Path]:
    """Give the file of every module of the package, callbacks included."""
    found = {}
    for folder, package in ((ROOT / "isara_pl", "isara_pl"), (ROOT / "callbacks", "isara_pl.callbacks")):
        for path in folder.rglob("*.py"):
            if not path.relative_to(ROOT).is_relative_to("isara_pl/callbacks"):  # a link to callbacks/
                name = ".".join([package, *path.relative_to(folder).with_suffix("").parts])
                found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """Give the modules of ours that a file imports anywhere: at its top, in functions, for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "isara_pl":
            yield from {name if (name := f"{node.module}.{one.name}") in MODULES else node.module for one in node.names}
        elif isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.split(".")[0] == "isara_pl")


def room(module: str) -> str:
    return module.split(".")[1]


IMPORTS = {name: sorted({*imported(path)} - {name}) for name, path in MODULES.items()}


def test_a_module_knows_its_own_room_and_lower_ones_only():
    def is_higher(name: str, other: str) -> bool:
        return other in OUTSIDE or ROOMS.index(room(other)) > ROOMS.index(room(name))

    known = [(name, other) for name in MODULES if name not in OUTSIDE for other in IMPORTS[name]]
    assert not [f"{name} knows {other}" for name, other in known if is_higher(name, other)]


def test_no_imports_go_in_a_circle():
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in IMPORTS[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


def test_every_room_is_installed_and_every_import_is_absolute():
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name, path in MODULES.items():
        if path.name == "__init__.py":
            assert f'"{name}"' in declared
        relative = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        assert not [node for node in relative if node.level]


def test_a_file_is_read_from_top_to_bottom_in_one_sitting():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert not {name: count for name, count in lines.items() if count > LONGEST}

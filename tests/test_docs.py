"""README and docs say what is true: their Python runs, their commands, targets and links exist."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import threading
from pathlib import Path
from typing import Any

import click
import pytest

import oneatatime
from oneatatime.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


GUIDES = ("files.md", "frames.md", "guides/dask.md", "guides/processes.md")
"""Pages whose blocks stand on those before them: tests/test_guides.py runs them as a whole."""


def is_guide(page: Path) -> bool:
    """Guides of engines that `make test` does not install are run where these are."""
    return page.relative_to(ROOT / "docs").as_posix() in GUIDES or page.parent.name == "guides"


def blocks(language: str) -> list[Any]:
    found = []
    for page in PAGES:
        if language == "python" and ROOT / "docs" in page.parents and is_guide(page):
            continue
        for match in re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M):
            line = page.read_text()[: match.start()].count("\n") + 1
            found.append(pytest.param(match[1], id=f"{page.name}:{line}"))
    return found


def run_in_a_thread(code: str, names: dict[str, Any]) -> None:
    """Runs a block as a notebook would: `await` and `async for` may stand at its top."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            result = eval(compile(code, "<docs>", "exec", flags=flags), names)
            if inspect.iscoroutine(result):
                asyncio.run(result)
        except BaseException as error:  # noqa: BLE001 - raised in the test's own thread
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


@pytest.mark.parametrize("code", blocks("python"))
def test_a_block_of_python_runs(code, server, admin, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    admin.hset("user:1", mapping={"name": "Ada", "age": "36"})
    admin.set("greeting", "hello")
    admin.set("big", "x" * 3_000_000)
    admin.zadd("rank", {"a": 1.5})
    names: dict[str, Any] = {
        "oneatatime": oneatatime,
        "url": server.url,
        "source": server.url,
        "redis": server.url,
        "client": admin,
        "keys": ["greeting", "nothing", "user:1"],
        "line": '{"key":"user:1","type":"hash","value":{"name":"Ada"}}',
    }
    exec((ROOT / "examples" / "pipeline.py").read_text(), names)
    names["__name__"] = "docs"
    run_in_a_thread(code.replace('"redis://localhost"', repr(server.url)), names)


def commands() -> list[Any]:
    found = []
    for block in blocks("console"):
        text = block.values[0].replace("\\\n", " ")
        found += [
            pytest.param(line, id=line[:60]) for line in re.findall(r"^\$ (oneatatime .*)$", text, re.M)
        ]
    return found


@pytest.mark.parametrize("line", commands())
def test_a_command_has_the_options_it_is_shown_with(line) -> None:
    words = re.split(r"\s+[|#>]", line)[0].split()
    command: click.Command = main
    if words[1] in main.commands:  # type: ignore[attr-defined]
        command = main.commands[words[1]]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    known |= {"--help"}
    unknown = [
        word for word in words if word.startswith("-") and word != "-" and word.split("=")[0] not in known
    ]
    assert not unknown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_and_links_exist(page) -> None:
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^\$ |`| {4})make ([a-z-]+)", text, re.M)) <= targets
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if not link.startswith("http")]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_option_is_described() -> None:
    described = re.findall(r"^`(\w+)`", inspect.getdoc(oneatatime.Options) or "", re.M)
    assert described == list(oneatatime.Options.__dataclass_fields__)

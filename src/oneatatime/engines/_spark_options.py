"""Options of Spark's reader and writer, which are text, as arguments; and what a user's schema means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._deployment import Deployment
from .._errors import InvalidInput, closest
from .._secret import has_secrets
from ._table import opened

_ROWS = ("flatten", "columns", "unfit")


def _several(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _columns(text: str) -> Mapping[str, str] | Iterable[str]:
    pairs = [name.partition(":") for name in _several(text)]
    if all(colon for _, colon, _ in pairs):
        return {name.strip(): kind.strip() for name, _, kind in pairs}
    if any(colon for _, colon, _ in pairs):
        raise ValueError("a type for each name, or for none")
    return [name for name, _, _ in pairs]


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _database(text: str) -> int | str:
    return text if text == "all" else int(text)


_Made = tuple[Callable[[str], Any], str]  # what the text becomes, and how it has to look, in words

_TEXT: _Made = (str, "")
_NUMBER: _Made = (float, "a number")
_READING: dict[str, _Made] = {
    **dict.fromkeys(("url", "secret", "match", "unfit", "encoding", "read_from"), _TEXT),
    **dict.fromkeys(("rate", "bandwidth", "max_load"), _NUMBER),
    "partitions": (int, "a number"),
    "types": (_several, ""),
    "columns": (_columns, "names, or name:type, with commas between them"),
    "flatten": (_truth, "true or false"),
    "db": (_database, "a number, or all"),
    "pushdown": (_truth, "true or false"),
}
_WRITING = dict.fromkeys(("url", "secret", "on_conflict"), _TEXT)


def arguments_of(options: Mapping[str, str], *, writing: bool = False) -> dict[str, Any]:
    """What Spark's options mean as arguments of `Table.of`, or of `Destination.of`.

    Raises InvalidInput for an option that there is not, for one that is none of its kind, and for a URL with
    a password: options stand in plans, in the event log and in Spark's pages.
    """
    known = _WRITING if writing else _READING
    found: dict[str, Any] = {}
    for name, text in options.items():
        if name not in known:
            near = closest(name, known)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"
            raise InvalidInput(
                f"there is no option {name!r} for {'writing' if writing else 'reading'}: {hint}"
            )
        made, what = known[name]
        try:
            found[name] = made(text)
        except (ValueError, KeyError) as error:
            raise InvalidInput(f"option {name!r} is {what}, and not {text!r}") from error
    if "url" not in found:
        raise InvalidInput('say which server: .option("url", "redis://localhost")')
    if has_secrets(Deployment.of(found["url"])):
        text = "options stand in Spark's plans and on its pages, so the url must hold no password"
        raise InvalidInput(
            f"{text}: leave it out, and name the environment variable that holds it, on the driver and on "
            'every executor: .option("secret", "NAME")'
        )
    found["target" if writing else "source"] = found.pop("url")
    return found


def layout(given: dict[str, Any]) -> Any:
    """The Arrow schema of what these arguments read."""
    arguments = {
        name: value
        for name, value in given.items()
        if name not in (*_ROWS, "source", "partitions", "pushdown")
    }
    _, begun = opened(given["source"], arguments)
    return begun.arrow(**{name: given[name] for name in _ROWS if name in given}).schema


def as_wanted(given: dict[str, Any], schema: Any) -> dict[str, Any]:
    """The arguments for rows of this schema: a layout's columns, or some of them; else fields of hashes.

    Raises InvalidInput where a column of the layout has another type here.
    """
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

    if "key" in schema.names and str(schema.field("key").type) == "string":
        given = {"encoding": "utf-8", **given}
    if "columns" not in given:
        known = to_arrow_schema(from_arrow_schema(layout(given)), timezone="UTC")
        if set(schema.names) <= set(known.names):
            for field in schema:
                if field.type != (kind := known.field(field.name).type):
                    text = f"the schema says that {field.name!r} is {field.type}, and here it is {kind}"
                    raise InvalidInput(
                        f'{text}: where it is a field of hashes, say so with option("columns")'
                    )
            return given
    beside = ("key", "db") if given.get("db") == "all" else ("key",)
    return {**given, "columns": {field.name: field.type for field in schema if field.name not in beside}}

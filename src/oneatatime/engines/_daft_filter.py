"""A filter of Daft's, offered to the server condition by condition."""

from __future__ import annotations

from typing import Any

from daft.expressions.visitor import ExpressionVisitor

from .._pushed import Pushed


def taken(tree: Any, pushed: Pushed) -> bool:
    """Offers each condition of a filter to the server. Whether that was all of it."""
    match tree:
        case ("and", [left, right]):
            return all([taken(left, pushed), taken(right, pushed)])  # each is offered
        case ("equal", [("column", "key"), ("literal", key)]):
            return pushed.is_key(key)
    return pushed.has_type(_types(tree))


def _types(tree: Any) -> list[Any]:
    """The types that a condition allows, if that is all it says; else none."""
    match tree:
        case ("equal", [("column", "type"), ("literal", name)]):
            return [name]
        case ("or", [left, right]):  # as Daft hands down `is_in`
            some, others = _types(left), _types(right)
            return some + others if some and others else []
    return []


class Tree(ExpressionVisitor):  # type: ignore[misc]
    """An expression as pairs of a name and what it is of."""

    def visit_col(self, name: str) -> Any:
        return "column", name

    def visit_lit(self, value: Any) -> Any:
        return "literal", value

    def visit_function(self, name: str, args: list[Any]) -> Any:
        return name, [self.visit(one) for one in args if hasattr(one, "_expr")]

    def visit_alias(self, expr: Any, alias: str) -> Any:
        return self.visit(expr)

    def visit_cast(self, expr: Any, dtype: Any) -> Any:
        return "cast", [self.visit(expr)]

    def visit_coalesce(self, args: list[Any]) -> Any:
        return self.visit_function("coalesce", args)

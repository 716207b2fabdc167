"""Finds the small changes that can be made to a module: its mutants."""

import ast
import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.MatMult: ast.Add,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}  # fmt: skip

Node = TypeVar("Node", bound=ast.AST)
Place = ast.expr | ast.stmt


@dataclass(frozen=True)
class Mutant:
    """One change: the text from (line, column) to (end_line, end_column) becomes another.

    Lines count from 1, columns in bytes of UTF-8 from 0, as in `ast`.
    """

    path: str
    line: int
    column: int
    end_line: int
    end_column: int
    before: str
    after: str

    @property
    def key(self) -> str:
        """Identifies the mutant among those of one version of its module."""
        return (
            f"{self.path}:{self.line}:{self.column}-{self.end_line}:{self.end_column}:{self.after}"
        )

    @property
    def number(self) -> int:
        """A number below 2^20, another one for almost every mutant."""
        return int(hashlib.sha256(self.key.encode()).hexdigest()[:5], 16)

    def __str__(self) -> str:
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return f"{self.path}:{self.line}: `{before[:100]}` -> `{after[:100]}`"

    def apply(self, source: str) -> str:
        """Return the source with the change."""
        lines = source.encode().split(b"\n")
        head = [*lines[: self.line - 1], lines[self.line - 1][: self.column]]
        tail = [lines[self.end_line - 1][self.end_column :], *lines[self.end_line :]]
        return (b"\n".join(head) + self.after.encode() + b"\n".join(tail)).decode()


def find_mutants(path: str, source: str) -> list[Mutant]:
    """Return every mutant of a module, in the order of the text."""
    found = [
        _mutant(path, source, *change)
        for node in _executed_nodes(ast.parse(source))
        for change in _changes(node)
    ]
    return sorted(set(found), key=lambda m: (m.line, m.column, m.after))


def _mutant(path: str, source: str, node: Place, after: str) -> Mutant:
    before = ast.get_source_segment(source, node)
    assert before is not None
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    start, end = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
    return Mutant(path, *start, *end, before, after)


def _executed_nodes(node: ast.AST) -> Iterator[Place]:
    """Yield nodes in which a change could change what the program does.

    Annotations, decorators and unions of types are left out, and f-strings, which are messages and
    whose parts have no exact places in Python 3.11.
    """
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.JoinedStr) or _is_type(child):
                continue
            if isinstance(child, Place):
                yield child
            if isinstance(child, ast.AST):
                yield from _executed_nodes(child)


def _is_type(node: object) -> bool:
    """Return True for `A | B`, a union of names that begin with a capital or of built-in types."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.BitOr):
        return False
    names = [leaf.id for leaf in ast.walk(node) if isinstance(leaf, ast.Name)]
    return all(n[:1].isupper() or n in {"int", "str", "float", "bytes", "tuple"} for n in names)


def _changes(node: Place) -> Iterator[tuple[Place, str]]:
    """Yield each text that may replace the node, or its condition."""
    match node:
        case ast.Compare(ops=[op, *_]):
            yield node, _changed(node, ops=[_COMPARISONS[type(op)](), *node.ops[1:]])
        case ast.BinOp(op=op):
            yield node, _changed(node, op=_ARITHMETIC[type(op)]())
        case ast.BoolOp(op=op):
            yield node, _changed(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield node, f"({ast.unparse(operand)})"
        case ast.Constant(value=bool(flag)):
            yield node, str(not flag)
        case ast.Constant(value=int(number)):
            yield from ((node, str(number + 1)), (node, f"({number - 1})"))
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield test, f"(not ({ast.unparse(test)}))"
        case ast.Raise() | ast.Expr(value=ast.Call() | ast.Await()):
            yield node, "pass"
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield node, "return None"
        case ast.Break():
            yield node, "continue"
        case ast.Continue():
            yield node, "break"
        case ast.AugAssign(op=op):
            yield node, ast.unparse(_copy(node, op=_ARITHMETIC[type(op)]()))


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _changed(node: ast.expr, **fields: object) -> str:
    return f"({ast.unparse(_copy(node, **fields))})"


def _copy(node: Node, **fields: object) -> Node:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed

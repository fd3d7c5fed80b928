"""The built-in corpus: documentation that every Python installation carries."""

import ast
import hashlib
import inspect
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

_TESTS = {"test", "tests", "idle_test"}


def documents(*, packages: bool = False) -> Iterator[tuple[str, str]]:
    """Yield ``(name, text)`` for each module and help topic that says something new.

    Sources are parsed, never imported. A paragraph that an earlier document holds is left out.

    Args:
        packages: Go on with the docstrings of the installed packages.
    """
    seen: set[bytes] = set()
    for name, paragraphs in _sources(packages):
        fresh = [paragraph for paragraph in paragraphs if _is_new(paragraph, seen)]
        if fresh:
            yield name, "\n\n".join(fresh)


def _sources(packages: bool) -> Iterator[tuple[str, list[str]]]:
    for topic, text in sorted(topics.items()):
        yield f"topic {topic}", _paragraphs(text)
    places = sysconfig.get_paths()
    yield from _modules(Path(places["stdlib"]), skip={"site-packages", "dist-packages"} | _TESTS)
    if packages:
        yield from _modules(Path(places["purelib"]), skip=_TESTS)


def _modules(root: Path, skip: set[str]) -> Iterator[tuple[str, list[str]]]:
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if skip.isdisjoint(parts):
            yield ".".join(parts), _docstrings(path)


def _docstrings(path: Path) -> list[str]:
    """Collect the docstring paragraphs of a source file; none if it is not valid Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # invalid escapes in others' code
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # templates and deliberately broken examples
        return []
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented))
    return [paragraph for text in found if text for paragraph in _paragraphs(text)]


def _paragraphs(text: str) -> list[str]:
    return [p.strip() for p in inspect.cleandoc(text).split("\n\n") if p.strip()]


def _is_new(paragraph: str, seen: set[bytes]) -> bool:
    """Tell whether ``paragraph``, spaces and case aside, is new, and remember it."""
    plain = " ".join(paragraph.lower().split())
    mark = hashlib.blake2b(plain.encode(errors="replace"), digest_size=16).digest()
    if mark in seen:
        return False
    seen.add(mark)
    return True

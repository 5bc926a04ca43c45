"""From the names a user gives to measures: the registry, named sets, and files outside of it."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from defenses.spec import require
from measures.engine.measure import Measure


def resolve_names(
    names: Iterable[str],
    registry: Mapping[str, Measure],
    sets: Mapping[str, tuple[str, ...]],
    folder: Path,
) -> dict[str, Measure]:
    """Column name -> measure, in the order given, each once.

    A name is one of ``registry``, one of ``sets``, or ``path/to/file.py:name`` for a measure
    outside the repository (relative paths from ``folder``); its column is ``name``.
    ``ValueError`` with the valid names otherwise.
    """
    found: dict[str, Measure] = {}
    for name in names:
        file, _ = split_reference(name)
        if file is not None:
            column, measure = external(name, folder)
            require(column not in registry, f"{name}: {column} is a built-in measure; rename yours")
            require(
                found.get(column, measure).source_digest == measure.source_digest,
                f"{name}: another file defines a {column} too; rename one of them",
            )
            found[column] = measure
        elif name in sets:
            found.update((member, registry[member]) for member in sets[name])
        else:
            require(
                name in registry,
                f"measure {name!r} is not known; choose from the sets {', '.join(sets)}, "
                f"a file as ./mine.py:my_measure, or: {', '.join(registry)}",
            )
            found[name] = registry[name]
    return found


def split_reference(name: str) -> tuple[Path | None, str]:
    """``path/to/file.py:name`` as (file, name); any other name as (None, name)."""
    file, colon, inner = name.rpartition(".py:")
    return (Path(f"{file}.py"), inner) if colon else (None, name)


def reference(file: Path, name: str) -> str:
    """What ``split_reference`` takes apart."""
    return f"{file}:{name}"


def external(reference: str, folder: Path) -> tuple[str, Measure]:
    """(column, measure) of ``path/to/file.py:name``, a ``Measure`` or a plain function there.

    A function without a ``Measure`` around it is taken to need everything and to draw random
    numbers. The file's content is part of the definition, so an edit recomputes it.
    """
    file, column = split_reference(reference)
    assert file is not None
    path = (folder / file).resolve()
    require(path.is_file(), f"{reference}: there is no file {path}")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    module = load(path, content, digest)
    require(hasattr(module, column), f"{reference}: {path.name} defines no {column}")
    thing = getattr(module, column)
    if not isinstance(thing, Measure):
        require(callable(thing), f"{reference} is neither a Measure nor a function")
        thing = Measure(
            function=thing,
            family="control",
            needs=frozenset({"clean", "adversarial", "gradients", "threat", "train_size"}),
            expected_sign=None,
            stochastic=True,
        )
    return column, replace(thing, source_digest=digest)


def load(path: Path, content: bytes, digest: str) -> ModuleType:
    """The file as a module: exactly the content that was hashed, never a cached compilation.

    ``ValueError`` with the file's own error when it cannot be loaded.
    """
    spec = importlib.util.spec_from_loader(f"external_measure_{digest[:16]}", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses in the file look their module up there
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
    except Exception as error:
        raise ValueError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    return module

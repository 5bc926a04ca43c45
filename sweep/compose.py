"""Hydra composition, once per level of an axis instead of once per job.

A study of 1,344 models composed job by job takes over a minute; here the base configuration is
composed once, each level of a config-group axis once, and the grid is merged from them as plain
data. What a level changes is its difference to the base, so the cost grows with the sum of the
axes' levels. Where two axes touch the same key (a data set's default threat, and the threat
itself swept), Hydra's own precedence decides: such combinations are composed by Hydra.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from sweep import schema
from sweep.convert import unknown
from sweep.files import PROJECT

CONF = PROJECT / "conf"
# what Hydra raises for overrides that it cannot compose
REFUSED = (HydraException, ValueError, TypeError)
Config = dict[str, Any]
KeyPath = tuple[str, ...]  # of a key in the configuration
Change = tuple[KeyPath, Any]  # a key and its new value
Axes = tuple[str, ...]
Indices = tuple[int, ...]  # of a level, for each of some axes


@dataclass(frozen=True)
class Grid:
    """A composed study: the base configuration and, per axis, what each level changes in it."""

    base: Config
    axes: dict[str, list[Any]]
    fixed: tuple[str, ...]  # the overrides that are the same for all settings
    interpolated: bool  # some value refers to another key, so levels may act jointly

    def __len__(self) -> int:
        size = 1
        for levels in self.axes.values():
            size *= len(levels)
        return size

    def overrides(self, levels: Sequence[Any]) -> list[str]:
        """The override list that composes one setting: what other launchers receive."""
        axes = [f"{k}={_literal(v)}" for k, v in zip(self.axes, levels, strict=True)]
        return [*self.fixed, *axes]

    def settings(self) -> Iterator[tuple[tuple[Any, ...], Config]]:
        """Every combination: (its levels, its configuration). Nothing is validated here."""
        changes: dict[Axes, dict[Indices, list[Change]]] = {
            (axis,): self._changes((axis,)) for axis in self.axes
        }
        for together in self._joint(changes):
            for axis in together:
                del changes[(axis,)]
            changes[together] = self._changes(together)
        for indices in itertools.product(*(range(len(v)) for v in self.axes.values())):
            index = dict(zip(self.axes, indices, strict=True))
            chosen = [by_index[tuple(index[a] for a in g)] for g, by_index in changes.items()]
            levels = tuple(v[i] for v, i in zip(self.axes.values(), indices, strict=True))
            yield levels, _changed(self.base, chosen)

    def _joint(self, changes: Mapping[Axes, Mapping[Indices, list[Change]]]) -> list[Axes]:
        """Groups of axes whose levels touch the same keys, and so must be composed together."""
        groups: list[tuple[Axes, set[KeyPath]]] = []
        for axes, levels in changes.items():
            paths = {path for level in levels.values() for path, _ in level}
            apart = [g for g in groups if not (self.interpolated or _overlap(g[1], paths))]
            joined = [g for g in groups if g not in apart]
            for other, theirs in joined:
                axes, paths = (*other, *axes), paths | theirs
            groups = [*apart, (axes, paths)]
        return [axes for axes, _ in groups if len(axes) > 1]

    def _changes(self, axes: Axes) -> dict[Indices, list[Change]]:
        """For each combination of the levels of ``axes``: what it changes in the base."""
        result: dict[Indices, list[Change]] = {}
        for indices in itertools.product(*(range(len(self.axes[a])) for a in axes)):
            levels = [self.axes[a][i] for a, i in zip(axes, indices, strict=True)]
            if len(axes) == 1 and not _is_group(axes[0]):
                result[indices] = [(tuple(axes[0].split(".")), levels[0])]
            else:
                chosen = [f"{a}={_literal(v)}" for a, v in zip(axes, levels, strict=True)]
                composed = compose_plain([*self.fixed, *chosen])
                result[indices] = list(_difference(self.base, composed, ()))
        return result


@contextmanager
def hydra_context() -> Iterator[None]:
    """Hydra's search path over ``conf``, unless launch.py has set one up already."""
    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield


def compose_plain(overrides: Sequence[str]) -> Config:
    """Compose one configuration and return it as plain data.

    Raises:
        ValueError: an option or a choice that does not exist; the message names valid ones.
    """
    try:
        config = compose("config", overrides=list(overrides))
    except REFUSED as error:
        raise ValueError(explain(error, overrides)) from None
    return checked(config)


def checked(config: DictConfig) -> Config:
    """A composed configuration as plain data. ``ValueError`` for a key of the wrong kind."""
    plain = to_plain(config)
    schema.check(plain)
    return plain


def launcher(overrides: Sequence[str]) -> Config:
    """Options of the launcher that the overrides choose (``hydra/launcher=...``), if it is ours.

    Raises:
        ValueError: as ``compose_plain``.
    """
    chosen = [_line(o) for o in parse(overrides) if not o.is_sweep_override()]
    with hydra_context():
        try:
            config = compose("config", overrides=chosen, return_hydra_config=True)
        except REFUSED as error:
            raise ValueError(explain(error, overrides)) from None
        options = _launcher_options(config)
        return to_plain(options) if "kind" in options else {}


def _launcher_options(config: DictConfig) -> DictConfig:
    options = config.hydra.launcher
    if not isinstance(options, DictConfig):
        raise ValueError(f"hydra.launcher={options!r} is a section; choose by hydra/launcher=")
    return options


def to_plain(config: DictConfig) -> Config:
    """A composed configuration as plain data, its interpolations resolved."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items()}


def grid(overrides: Sequence[str]) -> Grid:
    """The grid that a study and command-line overrides describe.

    An override with several values is an axis (or replaces the levels of the study's axis); one
    with a single value fixes it. Where a key is given twice, the last word counts, as in Hydra.

    Raises:
        ValueError: see ``compose_plain``; also an axis without levels.
    """
    parsed = parse(overrides)
    last = {_key(o): o for o in parsed}
    swept = {key: _levels(o) for key, o in last.items() if o.is_sweep_override()}
    for key in swept:
        if key == "study" or key.startswith("hydra"):
            raise ValueError(f"{_line(last[key])}: {key} takes one value; run the command for each")
    fixed = [o for o in parsed if not o.is_sweep_override() and not _key(o).startswith("hydra")]
    base = compose_plain([_line(o) for o in fixed])
    study_axes = schema.study(base).axes
    set_by_hand = {_key(o) for o in fixed}
    axes = {k: v for k, v in study_axes.items() if k not in set_by_hand} | swept
    for axis, levels in axes.items():
        if not isinstance(levels, list) or not levels:
            raise ValueError(f"axis {axis} of the study has no list of levels: {levels!r}")
        _check_key(base, axis)
    lines = tuple(_line(o) for o in fixed)
    raw = OmegaConf.to_container(compose("config", overrides=list(lines)), resolve=False)
    return Grid(base, axes, lines, interpolated="${" in str(raw))


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parsed overrides. Raises ``ValueError`` for one that is not of the form key=value."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ValueError(f"{str(error).splitlines()[0]}: it must be key=value") from None
    for override in parsed:
        if not _key(override):
            raise ValueError(f"{override.input_line!r} has no key: it must be key=value")
    return parsed


def _levels(override: Override) -> list[Any]:
    """The values of a swept override. ``ValueError`` for glob(), which nothing here looks up."""
    try:
        return [_plain(value) for value in override.sweep_iterator()]
    except HydraException:
        raise ValueError(f"{_line(override)}: list the values, glob() is not known here") from None


def check(overrides: Sequence[str]) -> None:
    """Compose with the first value of each swept override, to report a mistake in one line.

    Raises:
        ValueError: as ``compose_plain``.
    """
    first = []
    for override in parse(overrides):
        if override.is_sweep_override():
            key = override.input_line.partition("=")[0] if override.input_line else ""
            first.append(f"{key}={_literal(_levels(override)[0])}")
        else:
            first.append(_line(override))
    with hydra_context():
        try:
            config = compose("config", overrides=first, return_hydra_config=True)
        except REFUSED as error:
            raise ValueError(explain(error, overrides)) from None
        _launcher_options(config)


def explain(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's message in one line, with the options that would have been valid there."""
    cause = error.__cause__
    if isinstance(cause, (ConfigKeyError, ConfigAttributeError)) and cause.full_key:
        parent, _, name = cause.full_key.rpartition(".")
        holder: Any = compose("config", return_hydra_config=True)
        chosen = [o for o in overrides if o.startswith("hydra/launcher=")]
        with suppress(HydraException):  # the launcher chosen decides which options there are
            holder = compose("config", overrides=chosen, return_hydra_config=True)
        for part in parent.split(".") if parent else ():
            holder = holder[part]
        valid = {*holder, *([] if parent else _groups())} - {"hydra"}
        if not valid:  # an open mapping, such as measuring.parameters
            return f"{cause.full_key} is new in {parent}: add it with a plus, +{cause.full_key}..."
        prefix = f"{parent}." if parent else ""
        return str(unknown("option", prefix + name, [prefix + v for v in valid]))
    for override in overrides:
        group, _, choice = override.partition("=")
        choices = _options(group)
        bad_kind = not isinstance(error, HydraException) and choice not in choices
        if choices and (bad_kind or f"'{group.partition('@')[0]}/" in str(error)):
            return str(unknown(group, choice, choices))
    message = " ".join(str(error).split())
    if cause is not None and message.startswith("Error merging override"):
        message += f": {str(cause).splitlines()[0]}"
    return message


def _groups() -> list[str]:
    return sorted(p.name for p in CONF.iterdir() if p.is_dir())


def _options(group: str) -> list[str]:
    """Choices of a group, those included that plugins of Hydra bring (``hydra/launcher=basic``)."""
    loader = GlobalHydra.instance().config_loader()
    return sorted(loader.get_group_options(group.partition("@")[0]))


def _is_group(key: str) -> bool:
    loader = GlobalHydra.instance().config_loader()
    return bool(loader.get_group_options(key.partition("@")[0]))


def _key(override: Override) -> str:
    return override.get_key_element().lstrip("+~")


def _line(override: Override) -> str:
    assert override.input_line is not None
    return override.input_line


def _plain(value: Any) -> Any:
    """A level of a sweep as YAML would have given it."""
    return value.text if isinstance(value, QuotedString) else value


def _literal(value: Any) -> str:
    """A value as Hydra's override grammar writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(_literal(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{_literal(v)}" for k, v in value.items()) + "}"
    return str(value)


def _check_key(base: Mapping[str, Any], axis: str) -> None:
    if _is_group(axis):
        return
    holder: Any = base
    for part in axis.split("."):
        if not isinstance(holder, Mapping) or part not in holder:
            raise ValueError(f"unknown axis {axis!r}; valid: {', '.join(sorted(base))}")
        holder = holder[part]


def _difference(old: Any, new: Any, path: KeyPath) -> Iterator[Change]:
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for key in new:
            yield from _difference(old[key], new[key], (*path, key))
    elif old != new or type(old) is not type(new):
        yield path, new


def _overlap(first: set[KeyPath], second: set[KeyPath]) -> bool:
    """Whether a key of one is, contains, or lies in a key of the other."""
    return any(a[: len(b)] == b or b[: len(a)] == a for a in first for b in second)


def _changed(base: Config, changes: Sequence[list[Change]]) -> Config:
    """``base`` with changes applied; only the dictionaries on their paths are copied."""
    result = dict(base)
    copied: dict[KeyPath, Config] = {(): result}
    for path, value in itertools.chain.from_iterable(changes):
        holder = result
        for depth, part in enumerate(path[:-1], start=1):
            if path[:depth] not in copied:
                copied[path[:depth]] = holder[part] = dict(holder[part])
            holder = holder[part]
        holder[path[-1]] = value
    return result


def results_dir(config: Mapping[str, Any]) -> Path:
    """Where results lie: ``results`` next to launch.py unless the configuration says otherwise."""
    given = config.get("results_dir")
    return (Path(os.path.expanduser(given)) if given else PROJECT / "results").absolute()

"""From a grid to trainings: validity rules, equal configurations merged, what is left to do.

Pure: nothing is written and nothing is submitted.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from defenses import datasets
from defenses.spec import DatasetSpec, TrainingSpec, require
from sweep import compose, definitions, imported, schema
from sweep.balance import FREE_AXES, balanced
from sweep.convert import to_dataclass, to_plain
from sweep.digest import digest
from sweep.schema import OF_THE_MODEL, Checkpoint
from sweep.setting import (
    Evaluation,
    Images,
    Job,
    Measuring,
    Runtime,
    identity,
    model_axes,
    select_measures,
    training_spec,
)
from sweep.store import FINAL, Status, Store
from sweep.tracking import TrackingSettings


@dataclass(frozen=True)
class Plan:
    """Every model a study wants, merged into as few trainings as possible."""

    study: str
    axes: dict[str, list[Any]]
    jobs: tuple[Job, ...]
    overrides: tuple[tuple[str, ...], ...]  # per job: what composes it, for other launchers
    merged: dict[str, int]  # rule -> settings it merged into another one
    missing_files: tuple[str, ...]
    store: Store
    config: dict[str, Any]

    @property
    def models(self) -> int:
        return sum(len(job.checkpoints) for job in self.jobs)

    def headline(self) -> str:
        trainings = sum(job.spec.imported is None for job in self.jobs)
        if trainings == 0 and self.jobs:
            return f"{self.models} imported models"
        return f"{self.models} models from {trainings} trainings"


@dataclass(frozen=True)
class Progress:
    """What stands on disk of a plan's models, and which jobs still have something to do."""

    status: dict[str, Status]  # per model
    todo: tuple[int, ...]  # indices of jobs to run
    measure_only: frozenset[int]  # those of them whose training is finished

    def counts(self) -> dict[str, int]:
        return dict(Counter(self.status.values()))


def plan(overrides: Sequence[str]) -> Plan:
    """Compose and validate every setting that the overrides (``study=...`` among them) describe.

    Raises:
        ValueError: an unknown name, a value out of range; the first bad setting is described
            and the number of bad ones is said. Also an axis that makes no models differ.
    """
    with compose.hydra_context():
        grid = compose.grid(overrides)
        settings = list(grid.settings())
    store = Store(compose.results_dir(grid.base))
    study = _study_name(grid)
    require(
        grid.base["checkpoints"] is None,
        "checkpoints is for a single model; in a study give early_stopping=false,true",
    )
    describe = _describer(store.datasets)
    measuring = _cached_by_text(select_measures)

    trainings: dict[str, Job] = {}
    lines: dict[str, list[str]] = {}
    first: dict[str, tuple[tuple[Any, ...], Mapping[str, Any]]] = {}  # setting of each training
    merged: Counter[str] = Counter()
    missing: dict[str, None] = {}
    errors: list[str] = []
    for levels, config in settings:
        try:
            spec, absent = imported.find(training_spec(config), store.zoo)
            wanted = measuring({k: config[k] for k in ("measures", "measure_sets", "measuring")})
        except ValueError as error:
            errors.append(str(error))
            continue
        known = describe(spec.dataset, spec.extra_data)
        missing |= dict.fromkeys(m for m in (known.missing, absent) if m)
        selection, there = spec.recipe.selection, known.selection_size
        if selection.split == "held_out" and there is not None and (selection.size or 0) > there:
            errors.append(
                f"training.selection.size={selection.size}, but only {there} images are held out; "
                "lower it, or raise dataset.selection_size"
            )
            continue
        key = digest(identity(spec, known.fingerprint))[:16]
        checkpoint: Checkpoint = "best" if config["early_stopping"] else "last"
        axes = dict(zip(grid.axes, levels, strict=True))
        if "steps" in axes:
            axes["steps"] = spec.steps
        job = trainings.get(key)
        if job is None:
            job = _job(study, key, spec, config, wanted, known)
            lines[key] = grid.overrides(levels)
            first[key] = levels, config
        else:
            _require_equal_treatment(tuple(grid.axes), first[key], (levels, config))
            if checkpoint in job.checkpoints:
                collapsed = spec.steps is None and config["steps"] is not None
                merged["no inner maximisation, so no steps" if collapsed else "equal settings"] += 1
                continue
        trainings[key] = _with_checkpoint(job, checkpoint, axes)
    if errors:
        more = (
            f" ({len(errors)} of {len(settings)} settings are invalid)" if len(errors) > 1 else ""
        )
        raise ValueError(errors[0] + more)
    trainings = _sampled(trainings, schema.study(grid.base).sample)
    return Plan(
        study=study,
        axes=grid.axes,
        jobs=tuple(trainings.values()),
        overrides=tuple(
            (*lines[key], f"study.name={study}", f"checkpoints=[{','.join(job.checkpoints)}]")
            for key, job in trainings.items()
        ),
        merged=dict(merged),
        missing_files=tuple(missing),
        store=store,
        config=grid.base,
    )


def plan_one(config: Mapping[str, Any], store: Store) -> Job:
    """The job that one composed configuration describes: for launch.py without -m.

    Raises:
        ValueError: as ``plan``; also if files are missing.
    """
    spec, absent = imported.find(training_spec(config), store.zoo)
    known = _describer(store.datasets)(spec.dataset, spec.extra_data)
    if known.missing or absent:
        raise ValueError(known.missing or absent)
    study = str(schema.study(config).name)
    key = digest(identity(spec, known.fingerprint))[:16]
    job = _job(study, key, spec, config, select_measures(config), known)
    chosen = config["checkpoints"] or ["best" if config["early_stopping"] else "last"]
    for checkpoint in chosen:
        axes = dict(model_axes(spec, checkpoint))
        job = _with_checkpoint(job, checkpoint, axes)
    return job


def _require_equal_treatment(
    axes: Sequence[str],
    first: tuple[Sequence[Any], Mapping[str, Any]],
    second: tuple[Sequence[Any], Mapping[str, Any]],
) -> None:
    """Refuse two settings of one training that ask for different things to be done with its models.

    Merging them would drop what the second one asks for. Raises ``ValueError`` with the axes.
    """
    (levels, config), (other_levels, other_config) = first, second
    if all(
        config[key] is other_config[key] or config[key] == other_config[key]
        for key in config.keys() - OF_THE_MODEL
    ):
        return
    changed = [
        axis
        for axis, level, other in zip(axes, levels, other_levels, strict=True)
        if level != other
    ]
    named = [axis for axis in changed if axis.partition(".")[0] not in OF_THE_MODEL] or changed
    several = "; several measures are one list, measures=[...]" if "measures" in named else ""
    raise ValueError(
        f"{' and '.join(named)} cannot be an axis: it makes no models differ, and a table has one "
        "value of a model in each column. Run the study once for each value, under another "
        f"study.name each; trainings are shared{several}"
    )


def progress(jobs: Iterable[Job], store: Store) -> Progress:
    """Compare what is wanted with what is on disk."""
    status: dict[str, Status] = {}
    todo: list[int] = []
    measure_only: set[int] = set()
    wanted = definitions.reader()
    for index, job in enumerate(jobs):
        states: list[Status] = []
        asked = wanted(job)
        training_done = is_trained(job, store)
        for checkpoint in job.checkpoints:
            model_id = job.model_id(checkpoint)
            states.append(model_status(store, model_id, asked))
            status[model_id] = states[-1]
        if any(s not in FINAL for s in states):
            if store.is_running(job.training_id):
                for checkpoint, state in zip(job.checkpoints, states, strict=True):
                    if state not in FINAL:
                        status[job.model_id(checkpoint)] = "running"
                continue
            todo.append(index)
            if training_done:
                measure_only.add(index)
    return Progress(status, tuple(todo), frozenset(measure_only))


def is_trained(job: Job, store: Store) -> bool:
    """Whether a job has nothing to train (any more)."""
    imported = job.spec.imported is not None
    return imported or store.read_state(job.training_id).get("status") == "done"


def model_status(store: Store, model_id: str, wanted: definitions.Wanted) -> Status:
    """Status of a model by its row; ``missing`` also where a wanted value is not there yet.

    Where the wanted value failed after the model was done, it is the status of that failure.
    """
    row = store.read_row(model_id)
    if row is None:
        return "missing"
    stored: Status = row["status"]
    if stored != "done":
        return "missing" if stored == "running" else stored
    if not any(definitions.outdated(row, wanted, part) for part in definitions.PARTS):
        return "done"
    error = store.read_error(row["training_id"])
    failure: Status = error.get("status", "failed")
    return failure if definitions.failed(row, wanted, error) else "missing"


def _job(
    study: str,
    key: str,
    spec: TrainingSpec,
    config: Mapping[str, Any],
    measuring: Measuring,
    known: _Known,
) -> Job:
    runtime = {k: config[k] for k in ("device", "torch_threads", "checkpoint_minutes")}
    return Job(
        study=study,
        training_id=key,
        spec=spec,
        train_size=known.train_size,
        images=known.images,
        checkpoints=(),
        axes={},
        evaluation=to_dataclass(Evaluation, config["evaluation"], "evaluation"),
        measuring=measuring,
        tracking=to_dataclass(TrackingSettings, config["tracking"], "tracking"),
        runtime=to_dataclass(Runtime, runtime),
    )


def _with_checkpoint(job: Job, checkpoint: Checkpoint, axes: dict[str, Any]) -> Job:
    # always last before best: the order in which a task treats them must not depend on the grid
    checkpoints = sorted({*job.checkpoints, checkpoint}, reverse=True)
    return replace(job, checkpoints=tuple(checkpoints), axes={**job.axes, checkpoint: axes})


def _sampled(trainings: dict[str, Job], count: int | None) -> dict[str, Job]:
    """The trainings of ``study.sample`` balanced settings, with every seed that the study has."""
    if count is None:
        return trainings
    settings: dict[tuple[Any, ...], list[str]] = {}
    for key, job in trainings.items():
        axes = job.axes[job.checkpoints[0]]
        levels = tuple(repr(v) for k, v in axes.items() if k not in FREE_AXES)
        settings.setdefault(levels, []).append(key)
    groups = list(settings.values())
    kept = {key for index in balanced(list(settings), count) for key in groups[index]}
    return {key: job for key, job in trainings.items() if key in kept}


def _study_name(grid: compose.Grid) -> str:
    name = schema.study(grid.base).name
    if name is None:
        return f"adhoc-{digest([grid.axes, grid.fixed])[:8]}"
    if not name or "/" in name or name.startswith("."):
        raise ValueError(f"study.name={name!r} must be usable as a folder name")
    return name


@dataclass(frozen=True)
class _Known:
    """What planning knows of a data set; stand-ins where ``missing`` says what is not there."""

    fingerprint: str
    train_size: int
    images: Images
    selection_size: int | None = None
    missing: str | None = None


def _describer(cache: Path) -> Callable[[DatasetSpec, bool], _Known]:
    @functools.cache
    def describe(spec: DatasetSpec, extra_data: bool) -> _Known:
        try:
            data = datasets.load(spec, extra_data=extra_data, cache=cache)
        except datasets.DataMissing as error:
            size, known = datasets.expected_train_size(spec), datasets.expected(spec)
            images = Images(known.channels, known.image_size, known.num_classes)
            return _Known(_stand_in(spec, extra_data), size, images, missing=str(error))
        images = Images(data.in_channels, data.image_size, data.num_classes)
        return _Known(data.fingerprint, len(data.train), images, len(data.selection))

    return describe


def _stand_in(spec: DatasetSpec, extra_data: bool) -> str:
    """A fingerprint of images that are not there: of all that says which they would be."""
    which = to_plain(spec)
    del which["download"]
    if not extra_data:  # no extra images are used, but asking for them shapes the division
        del which["extra_labels"]
        which["extra_path"] = spec.extra_path is not None
    return f"missing:{digest(which)}"


def _cached_by_text(function: Any) -> Any:
    """Cache a function of plain data by the data's text."""
    cache: dict[str, Any] = {}

    def cached(data: Mapping[str, Any]) -> Any:
        key = repr(data)
        if key not in cache:
            cache[key] = function(data)
        return cache[key]

    return cached

"""W&B workspace views of a study, made from code: created once, updated in place ever after.

One view per slice (see ``slices``). W&B samples 100 runs when it groups, so that its group means
are wrong for larger groups: no panel here groups. Exact means are in the analysis run.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pandas as pd
from wandb_workspaces import expr, workspaces
from wandb_workspaces.reports.v2 import interface as panels

from sweep.axes import AXES
from sweep.store import Store
from sweep.tracking.content import CURVES
from sweep.tracking.server import Server, ServiceError
from sweep.tracking.settings import TrackingSettings, as_client, base_url, wandb_folder
from sweep.tracking.slices import FAILED, Slice, slices

RESULTS = ("clean_test", "pgd_train", "pgd_test", "gap")
DRAWN_RUNS = 100  # lines in one panel


@dataclass(frozen=True)
class View:
    """A saved view."""

    title: str
    url: str
    runs: int


def dashboard(
    store: Store, study: str, settings: TrackingSettings, table: pd.DataFrame
) -> list[View]:
    """Create or update the study's views; ``table`` is its ``models.parquet``.

    Raises:
        ServiceError: the service cannot be reached, refuses this user or knows no views.
        ValueError: tracking is off, or no model has been run.
    """
    if settings.mode == "none":
        raise ValueError("tracking.mode=none: no dashboard; try `dashboard --local`")
    parts = slices(table)
    if not parts:
        raise ValueError(f"study {study!r} has no models to show yet")
    entity = Server(settings).entity
    with as_client(wandb_folder(store.study(study))):
        return [
            _save(workspace(entity, settings.project, study, part, table), study, part)
            for part in parts
        ]


def workspace(
    entity: str, project: str, study: str, part: Slice, table: pd.DataFrame
) -> workspaces.Workspace:
    """The view of one slice, as the objects that W&B's library sends."""
    measures = [
        name
        for name in table.columns
        if name.startswith("measure/") and not name.endswith((".se", ".reason"))
    ]
    varied = [axis for axis in AXES if axis in table and table[axis].nunique(dropna=False) > 1]
    sections = [
        workspaces.Section(name="Training", panels=[_curve(key) for key in CURVES], is_open=True),
        workspaces.Section(name="Axes and results", panels=[_parallel(varied)], is_open=True),
        workspaces.Section(
            name="Gap against each measure", panels=[_scatter(m) for m in measures], is_open=True
        ),
    ]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=view_title(study, part),
        sections=sections[1:2] if part.failed else sections,
        settings=workspaces.WorkspaceSettings(x_axis="epoch", max_runs=DRAWN_RUNS),
        runset_settings=workspaces.RunsetSettings(
            filters=filters(study, part),
            order=[expr.Ordering(expr.Summary("gap"), ascending=True)],
            pinned_columns=[
                *(f"config:{axis}" for axis in varied),
                *(f"summary:{name}" for name in ("status", "reason", *RESULTS)),
            ],
        ),
    )


def filters(study: str, part: Slice) -> expr.And:
    """Which runs a slice shows. By tag, because a model can belong to several studies."""
    found = [expr.Tags().isin([f"study:{study}"])]
    found += [expr.Config(axis) == level for axis, level in part.levels]
    if part.failed:
        found.append(expr.Summary("status").isin(list(FAILED)))
    return expr.And(*found)


def view_title(study: str, part: Slice) -> str:
    return f"{study}: {part.title}"


def internal_name(study: str, part: Slice) -> str:
    """The view's name in W&B's addresses: the same each time, so that it is found again."""
    key = f"{study}\n{part.title}".encode()
    return hashlib.sha256(key).hexdigest()[:11]


def _save(view: workspaces.Workspace, study: str, part: Slice) -> View:
    name = internal_name(study, part)
    address = f"{base_url()}/{view.entity}/{view.project}?nw={name}"
    try:
        existing = _find(address)
        if existing is not None:
            view._internal_id = existing._internal_id
        # The library has no public way to choose the name under which a view is created.
        view._internal_name = f"nw-{name}-v"
        view.save()  # type: ignore[no-untyped-call]
    except Exception as error:  # the library lets through whatever happens below it
        raise ServiceError(
            f"{base_url()} did not take the view {view.name!r} ({error}); the project's own "
            f"report: `python -m sweep dashboard {study} --local`"
        ) from error
    return View(view.name, view.url, part.runs)


def _find(address: str) -> workspaces.Workspace | None:
    try:
        found: workspaces.Workspace = workspaces.Workspace.from_url(address)
    except ValueError:  # how the library says that there is none
        return None
    return found


def _curve(key: str) -> panels.LinePlot:
    return panels.LinePlot(title=key, x="epoch", y=[key], max_runs_to_show=DRAWN_RUNS)


def _scatter(measure: str) -> panels.ScatterPlot:
    return panels.ScatterPlot(
        title=measure.removeprefix("measure/"),
        x=panels.SummaryMetric(measure),
        y=panels.SummaryMetric("gap"),
    )


def _parallel(axes: list[str]) -> panels.ParallelCoordinatesPlot:
    columns: list[panels.Config | panels.SummaryMetric] = [
        *(panels.Config(axis) for axis in axes),
        *(panels.SummaryMetric(name) for name in RESULTS),
    ]
    return panels.ParallelCoordinatesPlot(
        columns=[panels.ParallelCoordinatesPlotColumn(column) for column in columns],
        layout=panels.Layout(w=24, h=10),
    )

"""Slices and views, as far as the specification objects that would be sent to W&B."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("wandb_workspaces")

from wandb_workspaces import workspaces
from wandb_workspaces.workspaces import internal

from sweep.tracking.dashboard import internal_name, view_title, workspace
from sweep.tracking.slices import LIMIT, Slice, slices


def grid() -> pd.DataFrame:
    """The 1,344 models of the paper's grid, eight of them failed."""
    rows = [
        {
            "architecture": architecture,
            "method": method,
            "steps": steps,
            "optimizer": optimizer,
            "batch_size": batch_size,
            "augmentation": augmentation,
            "extra_data": extra,
            "early_stopping": early,
        }
        for architecture, method, steps, optimizer, batch_size, augmentation, extra, early in (
            itertools.product(
                ("resnet18", "wrn28_10", "wrn34_10"),
                ("standard", "at", "trades", "mart"),
                (1, 10),
                ("sgd", "awp"),
                (32, 64, 128, 256),
                ("none", "crop_flip"),
                (False, True),
                (False, True),
            )
        )
        if not (method == "standard" and steps == 1)
    ]
    table = pd.DataFrame(rows)
    table["steps"] = table["steps"].astype("Int64").where(table["method"] != "standard")
    table["status"] = "done"
    table.loc[::168, "status"] = "diverged"
    for name in ("gap", "measure/a", "measure/a.se", "measure/a.reason", "measure/b"):
        table[name] = 0.0
    return table


def selected(table: pd.DataFrame, part: Slice) -> pd.Series[bool]:
    if part.failed:
        return table["status"] != "done"
    chosen = pd.Series(True, index=table.index)
    for axis, level in part.levels:
        chosen &= table[axis] == level
    return chosen


def test_slices_of_the_paper_are_small_enough_and_leave_nothing_out() -> None:
    table = grid()
    assert len(table) == 1344
    parts = slices(table)
    titles = [part.title for part in parts]
    assert titles[:3] == ["architecture resnet18", "architecture wrn28_10", "architecture wrn34_10"]
    assert "method trades" in titles
    assert titles[-1] == "failures"
    assert len(set(titles)) == len(titles)
    for part in parts:
        assert part.runs < LIMIT
        assert selected(table, part).sum() == part.runs
    for axis in ("architecture", "method"):
        covering = [p for p in parts if p.levels and p.levels[0][0] == axis]
        assert sum(selected(table, p).astype(int) for p in covering).eq(1).all()


@pytest.mark.parametrize("limit", [449, 100, 30])
def test_larger_slices_are_cut_until_they_fit(limit: int) -> None:
    table = grid()
    parts = [p for p in slices(table, limit) if p.levels and p.levels[0][0] == "architecture"]
    assert all(selected(table, p).sum() == p.runs < limit for p in parts)
    assert sum(selected(table, p).astype(int) for p in parts).eq(1).all()


def test_slice_that_cannot_be_cut_is_an_error() -> None:
    same = pd.concat([grid().head(1)] * 20, ignore_index=True)
    with pytest.raises(ValueError, match="do not differ in any axis"):
        slices(same, limit=10)


def spec(part: Slice) -> dict[str, Any]:
    """What would be sent, as JSON."""
    view = workspace("team", "project", "paper", part, grid())._to_model()
    loaded: dict[str, Any] = json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True))
    return loaded


@pytest.mark.parametrize("part", slices(grid()), ids=lambda part: part.title)
def test_filters_arrive_as_meant_and_select_exactly_the_slice(part: Slice) -> None:
    sent = spec(part)["section"]["runSets"][0]["filters"]["filters"]
    conditions = {(f["key"]["section"], f["key"]["name"]): (f["op"], f["value"]) for f in sent}
    assert conditions.pop(("run", "tags")) == ("IN", ["study:paper"])
    if part.failed:
        assert conditions == {("summary", "status"): ("IN", ["diverged", "oom", "failed"])}
    else:
        expected = {("config", axis): ("=", level) for axis, level in part.levels}
        assert conditions == expected
    assert all(f.get("connector", "AND") == "AND" and not f["disabled"] for f in sent)


def test_panels() -> None:
    sections = spec(Slice((("method", "at"),), 384))["section"]["panelBankConfig"]["sections"]
    by_name = {section["name"]: section["panels"] for section in sections}
    scatters = [panel["config"] for panel in by_name["Gap against each measure"]]
    assert [(s["xAxis"], s["yAxis"]) for s in scatters] == [
        ("summary:measure/a", "summary:gap"),
        ("summary:measure/b", "summary:gap"),
    ]
    curves = [panel["config"] for panel in by_name["Training"]]
    assert all(c["xAxis"] == "epoch" and c["limit"] == 100 for c in curves)
    assert not any("groupBy" in c for c in curves)  # grouping shows the mean of a sample
    columns = by_name["Axes and results"][0]["config"]["columns"]
    assert {"accessor": "config:batch_size.value"} in columns
    assert {"accessor": "summary:gap"} in columns


def test_view_survives_a_round_trip_through_the_library() -> None:
    part = Slice((("architecture", "resnet18"), ("batch_size", 64)), 100)
    model = workspace("team", "project", "paper", part, grid())._to_model()
    again = workspaces.Workspace._from_model(
        internal.View(
            entity="team",
            project="project",
            display_name=view_title("paper", part),
            name="n",
            id="i",
            spec=internal.WorkspaceViewspec.model_validate_json(
                model.spec.model_dump_json(by_alias=True, exclude_none=True)
            ),
        )
    )._to_model()
    first, second = (m.spec.section.run_sets[0] for m in (model, again))
    assert first.filters == second.filters
    assert first.run_feed == second.run_feed


def test_names_are_stable_and_differ() -> None:
    parts = slices(grid())
    names = {internal_name(study, part) for study in ("paper", "demo") for part in parts}
    assert len(names) == 2 * len(parts)
    assert internal_name("paper", Slice((), 3)) == internal_name("paper", Slice((), 900))


def test_no_module_of_a_job_needs_the_dashboards_library() -> None:
    source = Path(workspace.__code__.co_filename).parent
    users = [p.name for p in source.glob("*.py") if "wandb_workspaces" in p.read_text()]
    assert users == ["dashboard.py"]

"""One W&B run per study that holds its verdict: tables, figures and report, computed here.

W&B cannot compute rank correlations, and its group means are over samples. So what the report
says is published as it is; a new version is one more step of the same run, never another run.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import wandb
from matplotlib.figure import Figure
from PIL import Image

from sweep import manifest
from sweep.store import Store
from sweep.tracking.client import client_settings
from sweep.tracking.content import CURVES, read_history
from sweep.tracking.server import Server
from sweep.tracking.settings import TrackingSettings, as_client, default_entity, wandb_folder

COEFFICIENTS = ("tau", "tau_low", "tau_high", "psi")


def run_id(study: str) -> str:
    """The id of a study's analysis run."""
    return "analysis-" + re.sub(r"[^A-Za-z0-9_.-]", "-", study)


def publish_analysis(store: Store, study: str, settings: TrackingSettings) -> bool:
    """Show the study's report in W&B; False if exactly this one is there already.

    Raises:
        ValueError: there is no report yet.
        ServiceError: the service cannot be reached or refuses this user.
    """
    report = store.study(study) / "report"
    if not (report / "index.html").exists():
        raise ValueError(f"study {study!r} has no report yet; run `python -m sweep report {study}`")
    files = [report / "index.html", *sorted(report.glob("tables/*.csv"))]
    files += sorted(report.glob("figures/*.png"))
    digest = _digest(files)
    there = Server(settings).runs([run_id(study)]).get(run_id(study))
    if there is not None and there.summary.get("report_digest") == digest:
        return False
    folder = wandb_folder(store.study(study))
    with as_client(folder):
        _publish(store, study, settings, folder, files, digest)
    return True


def _publish(
    store: Store,
    study: str,
    settings: TrackingSettings,
    folder: Path,
    files: list[Path],
    digest: str,
) -> None:
    with wandb.init(
        id=run_id(study),
        name=f"{study}: analysis",
        project=settings.project,
        entity=settings.entity or default_entity(),
        group=study,
        job_type="analysis",
        tags=[f"study:{study}:analysis"],
        config={"study": study},
        resume="allow",
        reinit="create_new",
        settings=client_settings(settings, folder, online=True),
    ) as run:
        page, *others = files
        media: dict[str, Any] = {"report": wandb.Html(str(page), inject=False)}
        for path in others:
            if path.suffix == ".csv":
                table = pd.read_csv(path, index_col=0)
                media[f"tables/{path.stem}"] = wandb.Html(
                    table.to_html(float_format="{:.4g}".format)
                )
                run.summary.update(_coefficients(path.stem, table))
            else:
                media[f"figures/{path.stem}"] = wandb.Image(str(path))
        for key, figure in _curves(store, study):
            media[f"curves/{key}"] = wandb.Image(_rendered(figure))
        run.log(media)
        run.summary.update({"report_digest": digest})


def _coefficients(name: str, table: pd.DataFrame) -> dict[str, float]:
    """The main numbers as summary values, so that they can be sorted and plotted."""
    if not name.startswith("coefficients"):
        return {}
    return {
        f"{name}/{measure}/{column}": float(value)
        for column in COEFFICIENTS
        if column in table
        for measure, value in table[column].dropna().items()
    }


def _curves(store: Store, study: str) -> Iterator[tuple[str, Figure]]:
    """Mean training curves by method, over all trainings and not over a sample of them."""
    values: dict[str, dict[str, dict[int, list[float]]]] = {
        key: defaultdict(lambda: defaultdict(list)) for key in CURVES
    }
    for job in manifest.jobs(store, study).values():
        for record in read_history(store.training(job.training_id) / "history.jsonl"):
            for key in CURVES:
                if isinstance(record.get(key), int | float):
                    values[key][job.spec.method][record["epoch"]].append(record[key])
    for key, methods in values.items():
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for method, by_epoch in sorted(methods.items()):
            epochs = sorted(by_epoch)
            means = [sum(by_epoch[e]) / len(by_epoch[e]) for e in epochs]
            axes.plot(epochs, means, label=f"{method} (n={len(by_epoch[epochs[0]])})")
        axes.set(xlabel="epoch", ylabel=key, title=f"{study}: mean over trainings")
        if methods:
            axes.legend()
        yield key, figure


def _rendered(figure: Figure) -> Image.Image:
    """The client takes a figure only from pyplot, which wants a display."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return Image.open(buffer)


def _digest(files: list[Path]) -> str:
    sha = hashlib.sha256()
    for path in files:
        sha.update(path.name.encode())
        sha.update(path.read_bytes())
    return sha.hexdigest()

"""Planning 1,344 models: against Hydra's own sweeper, which composes job by job; and its growth."""

from __future__ import annotations

import tempfile
import time
from statistics import median

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from sweep import compose
from sweep.plan import plan, progress

SAMPLE = 40  # jobs that the stock way composes here; the rest would take as long each


def ours(overrides: list[str]) -> tuple[int, float, float]:
    """(models, seconds to plan, seconds to compare with the disk)."""
    with tempfile.TemporaryDirectory() as root:
        started = time.perf_counter()
        planned = plan([*overrides, f"results_dir={root}"])
        between = time.perf_counter()
        progress(planned.jobs, planned.store)
        return planned.models, between - started, time.perf_counter() - between


def stock() -> float:
    """Seconds per job of the composition that Hydra's basic sweeper does for each job."""
    with compose.hydra_context():
        grid = compose.grid(["study=paper", "dataset=digits"])
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", ["study=paper"], RunMode.MULTIRUN)
        seconds = []
        for (levels, _), _ in zip(grid.settings(), range(SAMPLE), strict=False):
            started = time.perf_counter()
            loader.load_sweep_config(master, grid.overrides(levels))
            seconds.append(time.perf_counter() - started)
    return median(seconds)


def main() -> None:
    paper = ["study=paper", "dataset=digits"]
    models, seconds, status = ours(paper)
    one = stock()
    print(f"plan: {models} models in {seconds:.2f} s; compared with the disk in {status:.2f} s")
    print(
        f"stock composition: {one * 1e3:.0f} ms a job (median of {SAMPLE}), so "
        f"{one * models:.0f} s for {models} jobs; planning, validating and hashing them all here "
        f"is {one * models / seconds:.0f} times faster"
    )
    seeds = ",".join(map(str, range(15)))
    many, longer, status = ours([*paper, f"seed={seeds}"])
    print(
        f"growth: {many} models in {longer:.2f} s, {many / models:.1f} times the models in "
        f"{longer / seconds:.1f} times the time; compared with the disk in {status:.2f} s"
    )


if __name__ == "__main__":
    main()

"""From Hydra's sweeper interface to ``sweep``: the study is planned and handed to a launcher."""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

ConfigStore.instance().store(
    group="hydra/sweeper",
    name="study",
    node={"_target_": "hydra_plugins.robustness_sweeper.sweeper.StudySweeper"},
    provider="robustness-sweep",
)


class StudySweeper(Sweeper):
    """Hydra calls ``setup`` and then ``sweep`` with the command line's overrides."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        from sweep import command  # torch takes seconds to import; Hydra imports all plugins

        launcher = OmegaConf.to_container(self.config.hydra.launcher, resolve=True)
        assert isinstance(launcher, dict)
        command.run_study(arguments, {str(k): v for k, v in launcher.items()}, self._elsewhere)

    def _elsewhere(self, overrides: list[list[str]]) -> Any:
        """Run override lists by whatever other launcher the user has chosen."""
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=self.config,
        )
        return launcher.launch(overrides, initial_job_idx=0)

"""From Hydra's sweeper interface to ``sweep``: the study is planned and handed to a launcher."""

from __future__ import annotations

from functools import partial
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
        self._instantiate = partial(
            Plugins.instance().instantiate_launcher,
            hydra_context=hydra_context,
            task_function=task_function,
            config=config,
        )
        self._launcher = OmegaConf.to_container(config.hydra.launcher, resolve=True)

    def sweep(self, arguments: list[str]) -> None:
        from sweep import command  # torch takes seconds to import; Hydra imports all plugins

        assert isinstance(self._launcher, dict)
        options = {str(key): value for key, value in self._launcher.items()}
        command.run_study(arguments, options, self._elsewhere)

    def _elsewhere(self, overrides: list[list[str]]) -> Any:
        """Run override lists by whatever other launcher the user has chosen."""
        return self._instantiate().launch(overrides, initial_job_idx=0)

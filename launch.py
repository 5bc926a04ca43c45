"""Train one model, or with -m a whole study: see README.md."""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """One setting: train, evaluate, measure, print its row. With -m the sweeper takes over."""
    from sweep import command

    status = command.run_one(config)
    if HydraConfig.get().mode == RunMode.RUN:  # in a sweep of another launcher, more follow
        sys.exit(status)


if __name__ == "__main__":
    if not {"-sc", "--shell-completion"} & {*sys.argv}:  # the shell waits: without torch, please
        from sweep import command

        command.check(sys.argv[1:])
    main()

"""Train one model, or with -m a whole study: see README.md."""

import sys

import hydra
from omegaconf import DictConfig

from sweep import command


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """One setting: train, evaluate, measure, print its row. With -m the sweeper takes over."""
    sys.exit(command.run_one(config))


if __name__ == "__main__":
    command.check(sys.argv[1:])
    main()

"""Hydra alone: the same configuration files, Hydra's own sweeper and launcher, a task that does nothing."""

import hydra
from omegaconf import DictConfig

from sweep import config

config.register()


@hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="config")
def task(cfg: DictConfig) -> None:
    """Nothing."""


if __name__ == "__main__":
    task()

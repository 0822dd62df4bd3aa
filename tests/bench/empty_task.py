"""Hydra alone: the same configuration files, Hydra's own sweeper and launcher, a task that does nothing.

It stores the schema itself: `sweep.config.register` also spares Hydra its copies of the store.
"""

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from sweep.config.run import CONF, RunConfig

ConfigStore.instance().store(name="run_schema", node=RunConfig)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def task(cfg: DictConfig) -> None:
    """Nothing."""


if __name__ == "__main__":
    task()

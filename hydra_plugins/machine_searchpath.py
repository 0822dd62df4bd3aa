"""Hydra search path: after conf/, the configuration files of this machine, such as hardware=this_machine."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from sweep.places import machine_conf


class MachineSearchPath(SearchPathPlugin):
    """Adds the folder that `python -m sweep.predict measure` writes to, where there is one."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra once a command."""
        folder = machine_conf()
        if folder.is_dir():
            search_path.append(provider="sweep", path=f"file://{folder}")

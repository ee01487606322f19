"""Events in a notebook. Needs Jupyter's kernel: `pip install 'rivulet-client[jupyter]'`.

In a notebook:

    %load_ext rivulet_client.jupyter
    %rivulet connect http://127.0.0.1:8010 --token ada
    %rivulet subscribe blob.*
    %rivulet events
"""

from typing import TYPE_CHECKING

try:
    import IPython  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "rivulet_client.jupyter needs Jupyter: pip install 'rivulet-client[jupyter]'"
    ) from missing

from rivulet_client.jupyter.feed import Feed
from rivulet_client.jupyter.magics import RivuletMagics

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Feed", "RivuletMagics", "load_ipython_extension", "unload_ipython_extension"]

_loaded: list[RivuletMagics] = []


def load_ipython_extension(shell: "InteractiveShell") -> None:
    """`%load_ext rivulet_client.jupyter`."""
    magics = RivuletMagics(shell)
    shell.register_magics(magics)
    _loaded.append(magics)


def unload_ipython_extension(shell: "InteractiveShell") -> None:
    """`%unload_ext rivulet_client.jupyter`: disconnects too."""
    while _loaded:
        _loaded.pop().disconnect()
    for kind, name in (("line", "rivulet"), ("cell", "on")):
        shell.magics_manager.magics[kind].pop(name, None)

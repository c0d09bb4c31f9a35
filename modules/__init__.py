"""The modules and their common parts. All of this runs in task processes; it imports `app` and `ipc` only."""

import os

PATHS = "SISYPHUS_MODULE_PATHS"
"""Environment variable with the directories of `[tool.client.modules] paths`. A process that a module starts with
`multiprocessing` (spawn) needs it: such a process imports the module anew, as `modules.NAME`."""

__path__ += filter(None, os.environ.get(PATHS, "").split(os.pathsep))

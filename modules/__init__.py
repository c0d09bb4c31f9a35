"""The modules, and what serves them in a task process. They import `app` and `ipc`, and never the supervisor."""

import os

PATHS = "SISYPHUS_MODULE_PATHS"
"""Environment variable with the directories of `[tool.client.modules] paths`: a process that a module starts with
`multiprocessing` (spawn) imports that module by its name, `modules.NAME`, and must find it."""

__path__ += filter(None, os.environ.get(PATHS, "").split(os.pathsep))

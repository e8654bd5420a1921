"""Imports what every run of pytest imports, for interpreters that are up before there is one."""

import importlib
import pdb  # noqa: F401

import pytest  # noqa: F401
from _pytest.config import default_plugins

for name in (*default_plugins, "_argcomplete"):
    try:
        importlib.import_module("_pytest." + name)
    except ImportError:
        pass  # a plugin of another version

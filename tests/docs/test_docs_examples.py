"""The examples in docstrings run, and give what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fourfold

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(fourfold.__path__, "fourfold.")
    if not module.ispkg and ".migrations" not in module.name and not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0

"""Builds the compiled modules ``fastinn._cpu`` and ``fastinn._cuda`` with CMake."""

from scikit_build_core.setuptools.wrapper import setup

setup(cmake_source_dir=".")

"""Runs the commands as ``python -m fastinn``."""

from fastinn.cli import main

main()

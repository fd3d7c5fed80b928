"""``fastinn doctor``."""

from fastinn._doctor import findings
from fastinn.cli._options import AsJson
from fastinn.cli._terminal import show
from fastinn.report import terminal


def doctor(as_json: AsJson = False) -> None:
    """Tell what was built, found and chosen on this machine.

    Example: fastinn doctor
    """
    show(findings(), as_json, terminal.findings_table)

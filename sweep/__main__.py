"""``python -m sweep``: look at studies and tend them; measure and attack single models.

Nothing here changes a finished result.
"""

from __future__ import annotations

import typer

from sweep.cli import models, results, studies

app = typer.Typer(
    name="python -m sweep",
    help="Look at studies and tend them; measure and attack single models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for part in (studies, results, models):
    app.registered_commands += part.app.registered_commands


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()

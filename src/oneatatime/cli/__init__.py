"""The command line: `oneatatime keys`, `oneatatime items`, `oneatatime import`, `oneatatime demo`.

Each command has a file of its own and imports what is heavy only when it runs, so that `--help`
answers at once. Data goes to stdout; progress, warnings and errors go to stderr. Exit codes: 0 complete,
1 not complete, 2 usage, 3 finished but something was left out, 130 interrupted, 141 the reader of the
output went away.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn

import click

from .demo import demo
from .export import export
from .items import items
from .keys import keys
from .load import load

_FAILED, _MISUSED, _INTERRUPTED = 1, 2, 130


class _Commands(click.Group):
    """The commands, with every error of ours turned into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        from .. import Error, Incomplete, InvalidInput

        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except InvalidInput as error:
            _leave(str(error), _MISUSED)
        except Incomplete as error:
            missing = [what for what in error.missing if what not in error.message]
            _leave(f"{error}; missing: {', '.join(missing)}" if missing else str(error), _FAILED)
        except Error as error:
            _leave(str(error), _FAILED)
        except (click.Abort, KeyboardInterrupt):
            _leave("interrupted", _INTERRUPTED)
        except BrokenPipeError:  # of what was said to stdout; data is written elsewhere
            from ._output import BROKEN_PIPE, abandon_stdout

            abandon_stdout()
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        except Exception as error:
            if os.environ.get("ONEATATIME_TRACEBACK"):
                raise
            _leave(f"{type(error).__name__}: {error} (ONEATATIME_TRACEBACK=1 shows where)", _FAILED)


def _leave(message: str, code: int) -> NoReturn:
    click.echo(f"oneatatime: {message}", err=True)
    raise click.exceptions.Exit(code) from None


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from .._version import __version__

    click.echo(f"oneatatime {__version__}")
    ctx.exit()


@click.group(cls=_Commands)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Everything in a Redis or Valkey server, one at a time.

    Without a URL or --host the server is $REDIS_URL, else $VALKEY_URL, else redis://localhost.
    """


for _command in (keys, items, export, load, demo):
    main.add_command(_command)

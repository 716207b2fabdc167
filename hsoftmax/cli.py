"""The command line: the one place that knows both the exporter and the service.

Each command is a module of `hsoftmax.commands`, imported when it is called, so that a server needs
nothing of the exporter's and the other way round.
"""

import importlib
import pkgutil
import sys
from collections.abc import Sequence

import click

from hsoftmax import models

from . import commands


class Commands(click.Group):
    """A group whose commands are the modules of `hsoftmax.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(module.name for module in pkgutil.iter_modules(commands.__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"{commands.__name__}.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=Commands, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="hsoftmax")
def hsoftmax() -> None:
    """Serve softmaxes over output spaces too large to score in full."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 done, 1 the work failed, 2 the call was wrong."""
    try:
        result = hsoftmax.main(arguments, prog_name="hsoftmax", standalone_mode=False)
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except models.UserError as error:
        return _say(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        return _say(_missing(error), 1)
    except OSError as error:
        return _say(f"{error.filename or 'system'}: {error.strerror or error}", 1)
    except (click.Abort, KeyboardInterrupt):
        return 130
    return result if isinstance(result, int) else 0


def main() -> None:
    sys.exit(run())


def _say(message: str, code: int) -> int:
    print("hsoftmax:", " ".join(message.split()), file=sys.stderr)
    return code


def _missing(error: ModuleNotFoundError) -> str:
    return (
        f"this command needs the package {error.name}, which is not installed: "
        "pip install 'hsoftmax[export,service]'"
    )

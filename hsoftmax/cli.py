"""The command line: the one place that knows both the exporter and the service.

Each command is a module of `hsoftmax.commands`, imported when it is called, so that a server needs
nothing of the exporter's and the other way round. A command imports its libraries in its callback:
help and completion need click alone, and for `serve` pydantic.
"""

import importlib
import sys
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from . import commands
from .missing_packages import missing
from .models.errors import UserError


class Commands(click.Group):
    """A group of the modules of `hsoftmax.commands`, listed without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(commands.SHORT_HELP)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in commands.SHORT_HELP:
            return None
        command = importlib.import_module(f"{commands.__name__}.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the short help of every command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(commands.SHORT_HELP.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands by the table; options as any command has them."""
        found = [
            CompletionItem(name, help=help)
            for name, help in commands.SHORT_HELP.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="hsoftmax")
@click.pass_context
def hsoftmax(ctx: click.Context) -> None:
    """Serve softmaxes over output spaces too large to score in full."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 done, 1 the work failed, 2 the call was wrong."""
    try:
        result = hsoftmax.main(arguments, prog_name="hsoftmax", standalone_mode=False)
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except UserError as error:
        return _say(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        return _say(missing(error.name or ""), 1)
    except MemoryError:
        return _say("memory: expected enough for this work, got too little", 1)
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

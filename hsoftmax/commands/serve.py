"""`hsoftmax serve`: answer over HTTP from a repository of bundles.

Every setting of the service is a flag; what no flag says, HSOFTMAX_<NAME> or the default does.
"""

from pathlib import Path
from socket import socket
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from hsoftmax.service.settings import Settings


def _option(name: str, field: FieldInfo) -> click.Option:
    flag = name.replace("_", "-")
    names = [f"--{flag}/--no-{flag}"] if field.annotation is bool else [f"--{flag}"]
    silent = field.default_factory or field.is_required() or field.default is None
    default = "" if silent else f" [default: {field.default}]"
    return click.Option(
        [*names, name], default=None, help=f"{field.description}{default}", **_value(field)
    )


def _value(field: FieldInfo) -> dict[str, Any]:
    """The value in help and completion: words, a path, or text. Settings checks it."""
    if get_origin(field.annotation) is Literal:
        words = list(get_args(field.annotation))
        return {
            "metavar": f"[{'|'.join(words)}]",
            "shell_complete": lambda ctx, param, start: [w for w in words if w.startswith(start)],
        }
    is_path = Path in (field.annotation, *get_args(field.annotation))
    return {"type": click.Path()} if is_path else {}  # Settings makes it a Path


def _call(
    repository: str | None,
    **given: Any,  # noqa: ANN401  Settings checks them
) -> int | None:
    told = {name: value for name, value in given.items() if value is not None}
    if repository is not None:
        told["repository"] = repository
    settings = _settings(told)
    from hsoftmax.service.workers.listener import listen

    with listen(settings.host, settings.port) as listener:
        return _serve(settings, listener)


def _serve(settings: Settings, listener: socket) -> int:
    """Serve with stderr captured, from before the import on: ONNX Runtime writes during its own."""
    from multiprocessing import resource_tracker

    from hsoftmax.service.logging import stderr_captured, stderr_log
    from hsoftmax.service.workers.restart import restart_after_crash

    def run(log_descriptor: int) -> None:
        from hsoftmax.service.server.serve import serve

        serve(settings, listener, log_descriptor)

    if settings.workers == 1:
        return restart_after_crash(settings.log_level, run)
    resource_tracker.ensure_running()  # later it would keep the pipe of stderr open
    with stderr_captured(stderr_log(settings.log_level)) as log_descriptor:
        run(log_descriptor)
    return 0


def _settings(told: dict[str, Any]) -> Settings:
    try:
        return Settings(**told)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        # The sentence of a wrong address is whole.
        if name in ("repository", "job_urls") and "ctx" in first:
            raise click.UsageError(f"{name}: {first['ctx']['error']}") from None
        # For a missing setting pydantic's input is all other settings, and keys are among them.
        got = "none" if first["type"] == "missing" else repr(first["input"])
        raise click.UsageError(f"{name}: {first['msg']}, got {got}") from None


command = click.Command(
    "serve",
    callback=_call,
    help="Answer over HTTP from the bundles in REPOSITORY/NAME/VERSION, or from a model folder "
    "(NAME) or one bundle. REPOSITORY may be in a store (s3://, gs://, az://, https://).",
    params=[
        click.Argument(["repository"], type=click.Path(), required=False),
        *(
            _option(name, field)
            for name, field in Settings.model_fields.items()
            if name != "repository"
        ),
    ],
)

"""`hsoftmax serve`: answer over HTTP from a repository of bundles.

Every setting of the service is a flag; what no flag says, HSOFTMAX_<NAME> or the default does.
"""

from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from hsoftmax import service


def _option(name: str, field: FieldInfo) -> click.Option:
    flag = name.replace("_", "-")
    names = [f"--{flag}/--no-{flag}"] if field.annotation is bool else [f"--{flag}"]
    silent = field.default_factory or field.is_required() or field.default is None
    default = "" if silent else f" [default: {field.default}]"
    return click.Option([*names, name], default=None, help=f"{field.description}{default}")


def _call(repository: Path | None, **given: Any) -> None:  # noqa: ANN401  Settings checks them
    told = {name: value for name, value in given.items() if value is not None}
    if repository is not None:
        told["repository"] = repository
    service.serve(_settings(told))


def _settings(told: dict[str, Any]) -> service.Settings:
    try:
        return service.Settings(**told)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise click.UsageError(f"{name}: {first['msg']}, got {first['input']!r}") from None


command = click.Command(
    "serve",
    callback=_call,
    help="Answer over HTTP from the bundles in REPOSITORY/NAME/VERSION.",
    params=[
        click.Argument(["repository"], type=click.Path(path_type=Path), required=False),
        *(
            _option(name, field)
            for name, field in service.Settings.model_fields.items()
            if name != "repository"
        ),
    ],
)

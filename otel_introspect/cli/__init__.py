"""The command ``otel-introspect``: which subcommands there are, and how each is loaded only when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final, NamedTuple

import click

_DISTRIBUTION: Final = "otel-introspect"


class _Place(NamedTuple):
    """Where a subcommand is, and its line in the list of subcommands."""

    module: str
    attribute: str
    summary: str


class LazyGroup(click.Group):
    """A group that imports a subcommand only when somebody calls it.

    The demo needs Django and rich, which a service that only wants ``doctor`` may not have.

    Args:
        places: Module, attribute and one-line summary of each subcommand, by name.
    """

    def __init__(self, *args: Any, places: Mapping[str, tuple[str, str, str]], **kwargs: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*args, **kwargs)
        self._places = {name: _Place(*place) for name, place in places.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, without an import."""
        return sorted(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the subcommand.

        Raises:
            click.ClickException: If it is there by name but cannot be imported; says what to install.
        """
        place = self._places.get(cmd_name)
        if place is None:
            return None
        try:
            command = getattr(import_module(place.module), place.attribute)
        except ImportError as error:
            missing = (error.name or "").partition(".")[0]
            if error.name == place.module:
                msg = f"{cmd_name} is not part of this version of {_DISTRIBUTION}."
            elif not missing or missing == __name__.partition(".")[0]:
                msg = f"{cmd_name} cannot be loaded ({error}): pip install --force-reinstall {_DISTRIBUTION}"
            else:
                msg = f"{cmd_name} needs {missing}, which is not installed: pip install '{_DISTRIBUTION}[{cmd_name}]'"
            raise click.ClickException(msg) from error
        if not isinstance(command, click.Command):
            msg = f"{place.module}.{place.attribute} is not a command."
            raise click.ClickException(msg)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """List the summaries that we know, where click would import every subcommand to ask for its own."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._places[name].summary) for name in sorted(self._places)])


@click.group(
    cls=LazyGroup,
    places={
        "demo": ("otel_introspect.cli.demo", "demo", "Show it at work on a small Django application."),
        "doctor": (
            "otel_introspect.cli.doctor",
            "doctor",
            "Say what it will do in this environment, and what is wrong.",
        ),
        "migrate": (
            "otel_introspect.cli.migrate",
            "migrate",
            "Say which variables replace the settings of dogslow, geordi and their kin.",
        ),
        "ps": ("otel_introspect.cli.ps", "ps", "Show the requests in flight, in every worker, and where they are."),
        "recover": (
            "otel_introspect.cli.recover",
            "recover",
            "Send off the requests of processes that are dead.",
        ),
        "render": (
            "otel_introspect.cli.render",
            "render",
            "Show a profile, or make HTML, SVG, PDF and others of it.",
        ),
        "sign": ("otel_introspect.cli.sign", "sign", "Make a URL that has one request of a running service profiled."),
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name=_DISTRIBUTION, prog_name=_DISTRIBUTION)
def main() -> None:
    """A slow request explains itself: stacks of the request that is stuck, as OpenTelemetry span events."""

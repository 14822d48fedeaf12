"""The `segwright` command: finds the commands in this folder, and turns errors into one message and an exit code."""

import logging
import sys
from io import TextIOWrapper
from typing import Annotated

import typer

import segwright
from segwright.core.errors import SegwrightError, UsageError
from segwright.core.lookup import find, names

BAD_USE, FAILURE, INTERRUPTED = 2, 1, 130  # exit codes; 130 is what a shell gives for Ctrl-C
GO_ON = {
    "convert": "; the same command goes on where it was, but with --force it begins anew",
    "compare": "; the same command goes on where it was, with --out and the folder that it named",
}


def application() -> typer.Typer:
    """All commands: each module of this folder that offers `run`."""
    app = typer.Typer(
        help="Turns images, video and volumes into masks.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_options)
    for name in names("segwright.cli"):
        module = find("segwright.cli", name)
        if hasattr(module, "run"):
            app.command(name)(module.run)
    return app


def _show_version(is_wanted: bool) -> None:
    """Print the version, and do nothing else."""
    if is_wanted:
        typer.echo(f"segwright {segwright.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version, and do nothing else.")
    ] = False,
) -> None:
    """What may be said before the name of a command."""


def main() -> None:
    """Run the command line; results go to stdout, everything else to stderr."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("segwright").setLevel(logging.INFO)
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)  # it tells the precision at each timing
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name that the terminal cannot show must not end the work
    try:
        application()()
    except SegwrightError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(BAD_USE if isinstance(error, UsageError) else FAILURE)
    except MemoryError as error:
        sys.stderr.write(f"error: not enough memory ({error}); use smaller images, fewer processes, or a larger machine\n")
        sys.exit(FAILURE)
    except RuntimeError as error:
        if "cannot cache function" not in str(error):  # as numba says where its compiled loops have no place
            raise
        sys.stderr.write(
            "error: neither the folder that Segwright is installed in nor ~/.cache can be written, where compiled loops are "
            "kept; name a folder of yours for them: export NUMBA_CACHE_DIR=FOLDER\n"
        )
        sys.exit(FAILURE)
    except OSError as error:
        sys.stderr.write(f"error: {error}; check free space, and that all places can be read and written\n")
        sys.exit(FAILURE)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:  # typer turns a Ctrl-C into this exit
            raise
        command = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
        sys.stderr.write(f"stopped{GO_ON.get(command, '')}\n")
        sys.exit(INTERRUPTED)

"""The `segwright` command: finds the commands in this folder, and turns errors into one message and an exit code."""

import logging
import sys
from io import TextIOWrapper

import typer

from segwright.core.errors import SegwrightError, UsageError
from segwright.core.lookup import find, names

BAD_USE, FAILURE, INTERRUPTED = 2, 1, 130  # exit codes; 130 is what a shell gives for Ctrl-C
GO_ON = {
    "fit": "; go on with the run by: segwright train --resume RUN",
    "train": "; go on with the run by: segwright train --resume RUN",
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
    for name in names("segwright.cli"):
        module = find("segwright.cli", name)
        if hasattr(module, "run"):
            app.command(name)(module.run)
    return app


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
    except OSError as error:
        sys.stderr.write(f"error: {error}; check free space, and that all places can be read and written\n")
        sys.exit(FAILURE)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:  # typer turns a Ctrl-C into this exit
            raise
        command = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
        sys.stderr.write(f"stopped{GO_ON.get(command, '')}\n")
        sys.exit(INTERRUPTED)

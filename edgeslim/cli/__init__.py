"""The command line: one file a verb, one `except` for all of them."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

import typer
from rich.markup import escape

from edgeslim import __version__
from edgeslim.cli.console import stderr_console
from edgeslim.errors import EdgeslimError, UsageError, shown

# typer has click inside, or, before 0.26, beside it: its own exceptions lead to the right classes.
_usage_error: type[Exception] = typer.BadParameter.__bases__[0]
_click_exception: type[Exception] = _usage_error.__bases__[0]

VERBS = (
    *(
        "doctor",
        "devices",
        "encoders",
        "diagnose",
        "measure",
        "plan",
        "slim",
        "head",
        "export",
        "build",
        "classify",
        "watch",
    ),
    *("check", "evaluate", "bench", "calibrate", "diff", "apply", "train", "demo"),
)
"""In the order of a mission. Each is a function, or an app of several, in the module of its name."""
_COLLECT_AFTER = 20_000
"""New objects after which garbage is looked for. Imports make many that stay; Python's own 700 would look through them
a hundred times before the first tile."""
_ON_BOARD = ("doctor", "build", "classify", "watch", "check", "evaluate", "bench", "calibrate", "apply")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"edgeslim {__version__}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Puts pretrained remote-sensing encoders on the computers that fly."""


def app_for(argv: Sequence[str]) -> typer.Typer:
    """The command line with the verb that `argv` asks for; with all of them where it names none.

    A verb's flags cost time and memory to build, and a scene in flight pays for every one that it does not use.
    """
    asked = next((word for word in argv if not word.startswith("-")), None)
    if asked in _ON_BOARD:
        # Nothing there multiplies matrices in NumPy, whose library would start threads that wait busily for it.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    app = typer.Typer(
        name="edgeslim",
        help="Puts pretrained remote-sensing encoders on the computers that fly.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(_root)
    for verb in (asked,) if asked in VERBS else VERBS:
        found = getattr(import_module(f"edgeslim.cli.{verb}"), str(verb))
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=verb)
        else:
            app.command()(found)
    return app


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line and let its errors rise."""
    words = list(sys.argv[1:] if argv is None else argv)
    _require_words(words)
    result = app_for(words)(args=words, standalone_mode=False)
    return result if isinstance(result, int) else 0


def _require_words(words: Sequence[str]) -> None:
    """An unset variable of the shell would be the folder that one is in, or no card at all."""
    for number, word in enumerate(words, 1):
        flag, equals, value = word.partition("=")
        if not word or (flag.startswith("--") and equals and not value):
            what = f"{flag}: found nothing" if word else f"argument {number}: found an empty word"
            before = f" behind {words[number - 2]}" if not word and number > 1 else ""
            raise UsageError(f"{what}{before}, expected a value; is a variable of your shell not set?")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; every deliberate error is one line on stderr. Returns the exit code.

    Without `argv` it is the process's own, and the process is about to end.
    """
    if argv is None:
        gc.set_threshold(_COLLECT_AFTER)
    # A service manager stops a process by SIGTERM: what is half-written goes, as after Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(argv)
    except EdgeslimError as error:
        _complain(str(error))
        return error.exit_code
    except _click_exception as error:
        message = getattr(error, "format_message", error.__str__)()
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(message)
        else:
            _complain(message)
        return 2 if isinstance(error, _usage_error) else 1
    except OSError as error:  # a name too long, a folder above it that may not be looked into, a full disk for scratch
        what = "the system" if error.filename is None else f"{error.filename}: the system"
        _complain(f"{what} does not take it ({error.strerror or error}); mend that, or give another path")
        return 1
    except (typer.Abort, KeyboardInterrupt):
        _complain("stopped")
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
        if argv is None:
            gc.freeze()  # the interpreter would look through everything once more before it ends


def _complain(message: str) -> None:
    stderr_console().print(f"[bold red]error:[/] {escape(shown(message))}")

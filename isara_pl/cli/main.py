"""The command line: which subcommand runs, and how the process ends.

Whatever needs torch or Lightning is imported only where it runs: help, versions and comparisons come at once.
"""

import codecs
import io
import os
import signal
import sys
import threading
from argparse import ArgumentError
from contextlib import redirect_stdout, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from isara_pl.cli import help
from isara_pl.errors import InputError, did_you_mean, printable
from isara_pl.run.files import unnameable

DEBUG = "ISARA_PL_DEBUG"
NEAREST = {
    **{"α": "alpha", "Σ": "sum", "∞": "inf", "↑": "^", "↓": "v", "−": "-", "≤": "<=", "÷": "/", "·": "*", "‖": "||"},
    **{"…": "...", "–": "-", "’": "'", "“": '"', "”": '"', "₁": "1", "₂": "2"},
}


def main(args: list[str] | dict[str, Any] | None = None) -> None:
    """Run the command line. Errors that a user can mend end it without a traceback, unless ISARA_PL_DEBUG is set.

    Args:
        args: Arguments in place of those of the process, as strings or, for Lightning's subcommands, as a dict.
    """
    _let_every_text_be_printed()
    _let_threads_wait_idly()
    words = sys.argv[1:] if args is None else args if isinstance(args, list) else ["fit"]
    in_main_thread = threading.current_thread() is threading.main_thread()  # no other may set handlers
    ours = in_main_thread and signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, None)
    terminated: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> None:
        terminated.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate) if ours else None
    try:
        _run(words, args)
    except ArgumentError as error:
        known = f"{words[0]} " if words[0] in help.LINES else ""
        tip = f"tip: `isara-pl {known}--help` shows what there is"
        print(f"error: {printable(str(error))}\n{tip}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + (terminated[0] if terminated else signal.SIGINT))
    except SystemExit as error:
        if terminated and error.code == 128 + signal.SIGINT:
            sys.exit(128 + terminated[0])
        raise
    except UnicodeEncodeError as error:
        of_a_path = error.encoding == sys.getfilesystemencoding() != "utf-8"  # which has no such texts as we write
        if os.environ.get(DEBUG) or not of_a_path:
            raise
        print(f"error: {printable(unnameable(error.object))}", file=sys.stderr)
        sys.exit(1)
    except (InputError, OSError) as error:
        if os.environ.get(DEBUG):
            raise
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)
    finally:
        if ours:
            signal.signal(signal.SIGTERM, before)


def _run(words: list[str], args: list[str] | dict[str, Any] | None) -> None:
    if words[:1] == ["help"] and len(words) > 1:
        words = args = [words[1], "--help"]
    first = words[0] if words else None
    if first in help.LINES and first not in help.TOLD:
        _refuse_homeless()
    if first is None:
        print(help.start())
    elif first in (*help.HELP, "help"):
        print(help.overview())
    elif first in ("--version", "version"):
        print(help.version_line())
    elif first in help.COMMANDS:
        from isara_pl.cli.commands import run_command

        run_command(first, words[1:])
    elif first in help.LINES or first.startswith("-"):
        if args is None and str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # as `python -m isara_pl` has it: a user's own callbacks lie here
        if len(words) == 2 and words[1] in help.HELP:
            print(_help_of(first), end="")
            sys.exit(0)  # as a parser ends when it has shown its help
        if first in help.LIGHTNINGS and "torch" not in sys.modules:
            if os.environ.get("LOCAL_RANK", "0") == "0":  # what one process has found is found
                from isara_pl.cli.first_look import first_look

                first_look(words)
            if "LOCAL_RANK" not in os.environ:  # else it is one of several processes that the first one has started
                print(
                    f"{help.version_line()}: importing torch and Lightning, then {first}", file=sys.stderr, flush=True
                )
        from isara_pl.cli.lightning import run  # with torch and Lightning

        run(args)
    else:
        raise ArgumentError(
            None,
            f"no subcommand is named {first!r}.{did_you_mean(first, help.LINES)} Allowed: {', '.join(help.LINES)}",
        )


def _help_of(subcommand: str) -> str:
    """Give the help of a subcommand of Lightning; the parser that knows it takes seconds to build."""
    from isara_pl.cli.first_look import help_name, remember, remembered

    known = remembered(help_name(subcommand))
    if known is not None:
        return known
    from isara_pl.cli.lightning import run

    made = io.StringIO()
    with redirect_stdout(made), suppress(SystemExit):
        run([subcommand, "--help"])
    remember(help_name(subcommand), made.getvalue())
    return made.getvalue()


def _let_every_text_be_printed() -> None:
    """Write signs that an encoding has not as what is nearest in ASCII: Windows, and C locales, redirect in theirs."""
    codecs.register_error("nearest", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="nearest")


def _let_threads_wait_idly() -> None:
    """Let torch's threads wait busily for a moment only, unless the environment says otherwise; before torch reads it.

    Where other programs compute too, long waits make all of them slower. GNU OpenMP itself takes this number where
    there are more threads than cores.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _nearest(error: UnicodeError) -> tuple[str, int]:
    """Give signs of our tables as in `NEAREST`, and any other character as its escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(NEAREST.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text), error.end


def _refuse_homeless() -> None:
    """Refuse what libraries would end in a traceback for when they are imported."""
    try:
        Path.home()
    except RuntimeError:
        raise InputError(
            "HOME is not set, and the system knows no home folder of this user. Libraries need one: set HOME to a "
            "folder, such as HOME=/tmp"
        ) from None

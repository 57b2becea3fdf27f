"""The command line: runs a command and returns its exit code.

Exit codes: 0 done, 1 failed with nothing committed, 2 wrong usage; with `--strict` also 3,
committed but not complete. A failure prints one message to the standard error: what was wrong,
where, and what to do.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from contextframe_beam.pipelines import process
from contextframe_beam.pipelines.process import DONE, FAILED

if TYPE_CHECKING:
    from contextframe_beam.pipelines.process import Settings

_PROGRAM = "contextframe-beam"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command of this process and ends the process."""
    given = sys.argv[1:] if arguments is None else arguments
    end_process_with(lambda settings: run(given, settings))


def end_process_with(action: Callable[[Settings], int]) -> NoReturn:
    """Ends the process with the exit code of `action`, even if it is interrupted."""
    at_once = False
    try:
        process.prepare()
        from contextframe_beam.pipelines.process import Settings, collect_seldom

        collect_seldom()
        settings = Settings()
        settings.interrupts.install()
        code = action(settings)
        settings.interrupts.ignore()
        at_once = settings.abandoned
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("Error: interrupted; nothing was committed\n")
        code = FAILED
        at_once = True
    except process.OutputError as error:
        # Python would complain again while it exits.
        process.give_up_output()
        if not error.is_closed:
            sys.stderr.write(f"Error: {error}\n")
        code = DONE if error.is_closed else FAILED
    if at_once:
        # An abandoned run may still have threads, and a normal exit would wait for them.
        sys.stderr.flush()
        os._exit(code)
    _exit(code)


def _exit(code: int) -> NoReturn:
    """Ends this process normally, but leaves its memory to the system.

    Python would clear thousands of modules one by one, which takes a tenth of a short run.
    """
    if any(
        one is not threading.current_thread() and not one.daemon for one in threading.enumerate()
    ):
        sys.exit(code)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(arguments: Sequence[str], settings: Settings | None = None) -> int:
    """Runs a command in this process and returns its exit code.

    Args:
        arguments: The words after `contextframe-beam`, as in `["search", "kb.lance", "beam"]`.
        settings: Receives the values of the options.

    Raises:
        KeyboardInterrupt: it was interrupted before it changed anything.
    """
    # Imports come later, so that we can handle an interrupt at once.
    import click

    from contextframe_beam.pipelines import logs
    from contextframe_beam.pipelines.cli import shared
    from contextframe_beam.pipelines.cli.commands import commands
    from contextframe_beam.pipelines.process import Settings

    completed = shared.answer(commands, _PROGRAM)
    if completed is not None:
        return completed
    settings = settings or Settings()
    with process.harmless(), logs.on_stderr(settings):
        try:
            with commands.make_context(_PROGRAM, list(arguments), obj=settings) as context:
                commands.invoke(context)
            return DONE
        except process.OutputError:
            raise
        except click.exceptions.Exit as end:
            return end.exit_code
        except Exception as error:
            # With any command, the problem may be one that a cleanup solves.
            for one in commands.commands["cleanup"].params:
                settings.flags.setdefault(str(one.name), one.opts[0])
            return shared.say_failed(error, settings)


if __name__ == "__main__":
    main()

"""Imports everything once, then forks a process for each start of the command line.

Reads requests from its standard input, one JSON a line, and writes what happens to a pipe, one JSON a line: the
process began, it came to where it shall be killed (it then waits for a byte on another pipe), it ended.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from chaos.watch import ANY_MOMENT, START, Watch


def main() -> None:
    """Serve requests until the input ends."""
    reports, go = int(sys.argv[1]), int(sys.argv[2])
    # what a run imports only when it needs it
    import faiss  # noqa: F401
    import sentence_transformers  # noqa: F401
    from transformers import BertModel, LlamaForCausalLM  # noqa: F401

    # and the command line itself
    import isara_pl.cli.lightning  # noqa: F401

    _tell(reports, ready=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _run(json.loads(line), reports, go)
        # a zombie until its end is told: its number belongs to no other process while it may be killed
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        _tell(reports, ended=True)
        sys.stdin.readline()
        _tell(reports, status=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _run(request: dict[str, Any], reports: int, go: int) -> NoReturn:
    """Be the command line, in a process group of its own."""
    os.setpgid(0, 0)
    _tell(reports, pid=os.getpid())  # by itself: before anything else that it tells
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)

    def reached() -> None:
        _tell(reports, reached=True)
        os.read(go, 1)

    from isara_pl.cli.main import main as command_line

    watch = Watch(Path(request["run_dir"]), request["stage"], request["number"], reached)
    watch.install()
    status = 1
    try:
        watch.comes_to(START)
        watch.comes_to(ANY_MOMENT)
        sys.argv = ["isara_pl", *request["command"]]
        command_line()
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    _tell(reports, counts=watch.counts)
    os._exit(status)


def _tell(reports: int, **news: Any) -> None:
    os.write(reports, (json.dumps(news) + "\n").encode())


if __name__ == "__main__":
    main()

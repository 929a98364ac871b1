"""The helper process: `python -m cope.adapters.answer_helper.child MEMORY_BYTES CPU_SECONDS`.

Reads requests from standard input, one at a time, until it ends. Limits are the kernel's, so nothing an answer does
can outlast them: memory by RLIMIT_AS (a `MemoryError`, answered with None), processor time by an interval timer whose
signal kills. Processor time rather than the clock: a busy machine must not make an answer unparsable.
"""

import logging
import os
import resource
import signal
import sys
import warnings

from cope.adapters.answer_helper import messages, work


def main() -> None:
    """Serve until standard input ends."""
    memory_bytes, cpu_s = int(sys.argv[1]), float(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; the end of input is ours
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    warnings.simplefilter("ignore")
    logging.disable()
    from cope.core.answers import symbolic  # noqa: F401 - before the limits, and before saying "ready"

    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    replies.write(messages.READY)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # a library that prints must not break the protocol, nor fill a pipe nobody reads
    os.dup2(nowhere, 2)
    loaded = False
    for line in sys.stdin.buffer:
        request = messages.decode_request(line)
        if not loaded and work.is_heavy(request):
            replies.write(messages.LOADING)
            work.load_heavy()
            loaded = True
            replies.write(messages.WORKING)
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        reply = _reply(request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(messages.encode_reply(reply))


def _reply(request: messages.Request) -> messages.Reply:
    nothing = False if isinstance(request, messages.Grade) else None
    try:
        return messages.Reply(work.perform(request))
    except MemoryError:
        return messages.Reply(nothing, tired=True)
    except Exception:
        return messages.Reply(nothing)


if __name__ == "__main__":
    main()

"""Runs a program at a terminal of its own and types answers at its prompts.

    terminal.py ANSWER... -- PROGRAM ARG...

A prompt is output that ends in ": ", at a terminal that does not echo: secrets are asked for. What the program writes to
its terminal goes to stdout; the exit status is its own, or 124 when it asks for more than there is to type, or takes
longer than a minute.
"""

import os
import pty
import select
import sys
import termios
import time

LIMIT_S = 60


def main(answers, command):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], command)
    until = time.monotonic() + LIMIT_S
    since_answer = b""
    while True:
        ready, _, _ = select.select([terminal], [], [], max(0, until - time.monotonic()))
        if not ready:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return 124
        try:
            output = os.read(terminal, 4096)
        except OSError:
            # The program has ended, and with it its side of the terminal.
            output = b""
        if not output:
            _, status = os.waitpid(pid, 0)
            return os.waitstatus_to_exitcode(status)
        os.write(1, output)
        since_answer += output
        if since_answer.endswith(b": ") and answers:
            since_answer = b""
            # The prompt comes first.
            while termios.tcgetattr(terminal)[3] & termios.ECHO and time.monotonic() < until:
                time.sleep(0.001)
            os.write(terminal, answers.pop(0).encode() + b"\n")


if __name__ == "__main__":
    end = sys.argv.index("--")
    sys.exit(main(sys.argv[1:end], sys.argv[end + 1 :]))

# SPDX-License-Identifier: Apache-2.0
"""What a party's process prints passes its door, or goes nowhere; each in a process of its own, as a party is."""

import json
import logging
import os
import signal
import sys
import textwrap
import traceback

import pytest

SETTING = """
import ctypes, json, os, subprocess, sys
from fedray.party.party import Party
from fedray.party.printing import Output
from fedray.types import PartyConfig

class Calls:
    pass

party = Party(PartyConfig("alice", ("alice",), 0, egress=os.environ["EGRESS"]), Calls())
output = Output(party.printed, silent=os.environ["EGRESS"] == "strict")
output.take()
libc = ctypes.CDLL(None)
"""

TALK = """
print("SECRET of print", flush=True)
print("SECRET of stderr", file=sys.stderr)
sys.stdout.buffer.write(b"SECRET of the buffer\\n")
import logging
logging.getLogger("fedray").warning("SECRET of the log")
sys.__stdout__.write("SECRET of the first stream\\n"); sys.__stdout__.flush()
os.write(1, b"SECRET of the system's stream\\n")
libc.puts(b"SECRET of C"); libc.fflush(None)
subprocess.run(["echo", "SECRET of another process"])
if os.fork() == 0:
    print("SECRET of a fork", flush=True)
    os._exit(0)
os.wait()
"""

TELL = """
output.settle()
part = party._journal.part(0, {}, 1, close=False)
found = [json.loads(line) for line in part.lines.split(b"\\n") if line]
with open(os.environ["FOUND"], "w") as file:
    json.dump(found, file)
"""


def run(tmp_path, egress, code=TALK, setting=SETTING, *, pipe=False):
    """Returns what a process printed to its two files, and its party's entries."""
    paths = {name: tmp_path / name for name in ("stdout", "stderr", "found")}
    files = {name: os.open(paths[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in ("stdout", "stderr")}
    ends = {name: os.pipe() for name in files} if pipe else {}
    child = os.fork()  # of this process, which has imported what it takes
    if child == 0:
        signal.alarm(60)
        try:
            for name, number in (("stdout", 1), ("stderr", 2)):
                os.dup2(ends[name][1] if pipe else files[name], number)
                for stream in (name, f"__{name}__"):
                    setattr(sys, stream, open(number, "w", buffering=1, closefd=False))  # noqa: SIM115
            logging.getLogger().handlers.clear()
            os.environ.update(EGRESS=egress, FOUND=str(paths["found"]))
            exec(compile(textwrap.dedent(setting + code + TELL), "program", "exec"), {})
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    said = []
    for name, file in files.items():
        os.close(file)
        if pipe:
            os.close(ends[name][1])
            with os.fdopen(ends[name][0], "rb") as end:
                said.append(end.read())
    assert os.waitpid(child, 0)[1] == 0
    said = said or [paths[name].read_bytes() for name in ("stdout", "stderr")]
    return said, json.loads(paths["found"].read_text())


def test_all_that_is_printed_is_on_the_ledger_to_the_byte(tmp_path):
    said, entries = run(tmp_path, "default")
    for source in (
        "print",
        "the buffer",
        "stderr",
        "the log",
        "the first stream",
        "the system",
        "C",
        "another process",
        "a fork",
    ):
        assert f"SECRET of {source}".encode() in said[0] + said[1]
    assert {(e["kind"], e["to"], e["allowed"]) for e in entries} == {("log", "driver", True)}
    noted = {
        stream: sum(e["nbytes"] for e in entries if e["call"].startswith(stream)) for stream in ("stdout", "stderr")
    }
    assert noted == {"stdout": len(said[0]), "stderr": len(said[1])}
    assert {e["call"] for e in entries} >= {"stdout", "stderr", "stdout of other code"}


def test_under_strict_egress_nothing_that_is_printed_leaves(tmp_path):
    said, entries = run(tmp_path, "strict")
    assert said == [b"", b""]
    assert {(e["kind"], e["allowed"]) for e in entries} == {("log", False)}
    assert "SECRET" not in json.dumps(entries)


def test_where_others_output_cannot_be_counted_it_goes_nowhere(tmp_path):
    said, entries = run(tmp_path, "default", pipe=True)
    assert b"SECRET of print" in said[0]
    assert b"SECRET of C" not in said[0]
    noted = {stream: sum(e["nbytes"] for e in entries if e["call"] == stream) for stream in ("stdout", "stderr")}
    assert noted == {"stdout": len(said[0]), "stderr": len(said[1])}


BROKEN = SETTING.replace("output.take()", "{}").replace("{}", "take = None; output.settle = lambda: None")


def test_a_party_that_leaves_its_streams_alone_prints_past_the_door(tmp_path):
    """The broken variant, as it was: nothing refused, nothing recorded."""
    said, entries = run(tmp_path, "strict", setting=BROKEN)
    assert b"SECRET of print" in said[0]
    assert entries == []


FINALIZER = """
class Loud:
    def __del__(self):
        print("SECRET of a finalizer", flush=True)

from fedray.party.door import journal
line_of = journal.line_of
def talking(*given):
    if given[2].kind == "hello":
        Loud()  # ends here, while the ledger's lock is held
    return line_of(*given)
journal.line_of = talking
party.handle("introduce", "1:init")
"""


def test_a_finalizer_that_prints_while_an_entry_is_written_blocks_nobody(tmp_path):
    said, entries = run(tmp_path, "default", code=FINALIZER)
    assert b"SECRET of a finalizer" in said[0]
    assert [e["kind"] for e in entries] == ["hello", "log"]


@pytest.mark.parametrize("egress", ["default", "strict"])
def test_output_does_not_stop_where_the_ledger_is_closed(tmp_path, egress):
    said, entries = run(
        tmp_path, egress, code="party._journal.close({}); print('SECRET')\nparty._journal._reading = 0\n"
    )
    assert (said, entries) == ([b"", b""], [])

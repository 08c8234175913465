# SPDX-License-Identifier: Apache-2.0
"""What a party's process prints passes its door, or goes nowhere; each in a process of its own, as a party is."""

import json

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


@pytest.fixture
def run(tmp_path, forks):
    """Returns a function; it returns what a process printed to its two streams, and its party's entries."""

    def run(egress, code=TALK, setting=SETTING, *, piped=False):
        found = tmp_path / "found"
        ran = forks.run(setting + code + TELL, environment={"EGRESS": egress, "FOUND": str(found)}, piped=piped)
        assert ran.code == 0, ran.stderr
        return [ran.stdout, ran.stderr], json.loads(found.read_text())

    return run


def test_all_that_is_printed_is_on_the_ledger_to_the_byte(run):
    said, entries = run("default")
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


def test_under_strict_egress_nothing_that_is_printed_leaves(run):
    said, entries = run("strict")
    assert said == [b"", b""]
    assert {(e["kind"], e["allowed"]) for e in entries} == {("log", False)}
    assert "SECRET" not in json.dumps(entries)


def test_where_others_output_cannot_be_counted_it_goes_nowhere(run):
    said, entries = run("default", piped=True)
    assert b"SECRET of print" in said[0]
    assert b"SECRET of C" not in said[0]
    noted = {stream: sum(e["nbytes"] for e in entries if e["call"] == stream) for stream in ("stdout", "stderr")}
    assert noted == {"stdout": len(said[0]), "stderr": len(said[1])}


BROKEN = SETTING.replace("output.take()", "{}").replace("{}", "take = None; output.settle = lambda: None")


def test_a_party_that_leaves_its_streams_alone_prints_past_the_door(run):
    """The broken variant, as it was: nothing refused, nothing recorded."""
    said, entries = run("strict", setting=BROKEN)
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


def test_a_finalizer_that_prints_while_an_entry_is_written_blocks_nobody(run):
    said, entries = run("default", code=FINALIZER)
    assert b"SECRET of a finalizer" in said[0]
    assert [e["kind"] for e in entries] == ["hello", "log"]


@pytest.mark.parametrize("egress", ["default", "strict"])
def test_output_does_not_stop_where_the_ledger_is_closed(run, egress):
    said, entries = run(egress, code="party._journal.close({}); print('SECRET')\nparty._journal._reading = 0\n")
    assert (said, entries) == ([b"", b""], [])

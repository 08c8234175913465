# SPDX-License-Identifier: Apache-2.0
"""Every decoder against bytes that nobody should send: it returns a record that has exactly these bytes, or it refuses.

Valid messages are changed (bits, stretches, lengths, pieces of other messages) or made up. Run it by itself for as many
inputs as you like; the suite runs a few thousand.

    python tests/fuzz_decoders.py --inputs 1000000 --seed 1
"""

import argparse
import json
import random
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedray.errors import EncodingError, PlanError, ProtocolError
from fedray.party.door.entry import Entry
from fedray.party.door.journal import Journal
from fedray.party.door.ledger_file import Book, BrokenLedger, from_bytes, to_bytes
from fedray.party.door.ledger_page import LedgerPage
from fedray.party.door.own_ledger import Marks, first_line
from fedray.party.door.own_ledger import read as read_own_ledger
from fedray.party.keys.memory_file import _Chain, _memo
from fedray.party.records import Answer, PastRound, RoundMessage
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.keys import Roster, generate_identity, public_bytes
from fedray.protocol.masking.frame import Masked
from fedray.protocol.messages import Confirm, Hello, dec, dec_list, enc, enc_list, purpose_of
from fedray.protocol.opened import OpenedSum
from fedray.protocol.packing import pack, unpack
from fedray.protocol.recovery import propose
from fedray.protocol.recovery.evidence import TwoInputs
from fedray.protocol.recovery.key_messages import Ack, Dealt, Keys, Sharing
from fedray.protocol.recovery.round_messages import (
    MaskedInput,
    Quorum,
    Survive,
    Survivors,
    Unmask,
    fill_header,
    masked_frame,
)
from fedray.protocol.scheme import View
from fedray.protocol.sharing.agreement import Agreement, AgreementSignature, Partial, Proof
from fedray.protocol.sharing.sealing import ShareHeader, header_of, seal, unseal
from fedray.protocol.spu.form import Form
from fedray.runtime.far.stream import StreamIn, StreamOut
from fedray.runtime.wire import read, write

HASH, SIGNATURE, SHARE = bytes(range(32)), bytes(range(64)), bytes(33)


@dataclass(frozen=True)
class Target:
    """One decoder.

    Attributes:
        valid: Messages that it accepts.
        decode: The decoder.
        again: The bytes of what it returned; None where there is no encoder.
        refusals: What it may raise.
    """

    valid: tuple[bytes, ...]
    decode: Callable[[bytes], Any]
    again: Callable[[Any], bytes] | None
    refusals: tuple[type[Exception], ...] = (EncodingError,)


def of(cls: Any, *records: Any, refusals: tuple[type[Exception], ...] = (EncodingError,)) -> Target:
    """Returns the target of a record with `encode` and `decode`."""
    encoded = tuple(bytes(record.encode()) for record in records)
    return Target(encoded, cls.decode, lambda record: bytes(record.encode()), refusals)


def masked() -> bytes:
    frame, words = Masked.frame(HASH, HASH, 3, 1, HASH, 5, 64)
    words[:] = np.arange(5)
    return frame.tobytes()


def masked_input() -> bytes:
    frame, words = masked_frame(5, 64)
    words[:] = np.arange(5)
    fill_header(frame, (HASH, 3, 1, HASH, 5, 64, HASH, SIGNATURE))
    return frame.tobytes()


def streamed(parts: list[bytes]) -> bytes:
    out, content = StreamOut(parts), b""
    while len(content) < out.length:
        content += out.at(len(content))
    return content


def parts_of(content: bytes) -> list[bytes]:
    stream, rest = StreamIn(), memoryview(content)
    while not stream.whole:
        space = stream.space()
        count = min(len(space), len(rest))
        if count == 0:
            raise EncodingError("cut off")
        space[:count] = rest[:count]
        stream.filled(count)
        rest = rest[count:]
    if rest:
        raise EncodingError("left over")
    return [bytes(part) for part in stream.parts]


def ledger() -> bytes:
    identity = generate_identity()
    roster, journal = {"alice": public_bytes(identity)}, Journal("alice", identity)
    for shape in (None, (3, 4)):
        journal.append(Entry("bob", "masked", shape, "uint8", 12, "1:round", True))
    journal.begin(HASH, roster)
    part = journal.part(0, roster, 1, close=True)
    return to_bytes(Book({"alice": LedgerPage(part.head, part.lines.split(b"\n"))}, roster, HASH, 1))


def own_ledger() -> bytes:
    identity = generate_identity()
    lines: list[bytes] = [first_line("alice", 1, "", identity)]
    roster, journal = {"alice": public_bytes(identity)}, Journal("alice", identity, lines.append)
    journal.begin(HASH, roster)
    journal.append(Entry("bob", "masked", (3, 4), "uint8", 12, "1:round", True))
    journal.close(roster)
    marks = Marks("alice", "")
    return b"".join(marks.line(line) for line in lines)


def targets() -> dict[str, Target]:
    """Returns every decoder of bytes that come from somewhere else."""
    roster = Roster.of({name: public_bytes(generate_identity()) for name in ("alice", "bob", "Ärger", "dave")})
    configs = [Config.propose("masking", roster, ["server"], Encoding()), propose(roster, ["server"], Encoding())]
    configs.append(Config.propose("sharing", roster, ["bob", "dave"], Encoding(), owners=["alice", "bob"]))
    survivors = Survivors(HASH, 3, HASH, (0, 1, 3), (HASH,) * 3)
    agreement = Agreement(HASH, 3, HASH, (0, 1, 3))
    proof = Proof(agreement, (SIGNATURE, SIGNATURE))
    header = ShareHeader(HASH, 3, 1, 0, HASH, 5, 64, "seed")
    words = ShareHeader(HASH, 3, 1, 0, HASH, 5, 64, "words")
    shares = (seal(HASH, header, HASH).tobytes(), seal(HASH, words, np.arange(6, dtype="<u8")).tobytes())
    forms = (Form((2, 3), "float32", 18, 0.5, 1 << 40), Form((), "bool", combine="xor", storage="x"))
    schema = (int, str, bytes, 32)
    memos: tuple[list[str | int], ...] = (
        ["members", "alice", "Ärger"],
        ["model", HASH.hex(), 0],
        ["begun", HASH.hex()],
    )
    first = tuple(_Chain("alice").line(memo)[:-1] for memo in memos)
    opened = OpenedSum(np.arange(24, dtype="<u8"), ("alice", "Ärger"), 5)  # 32 bytes when it is packed
    memory = [pack(opened.words).tobytes(), HASH, b""]
    past = (PastRound(1, OpenedSum(np.zeros(0, "<u8"), ())),)
    answer = Answer("opened", opened, HASH, View(1, ("alice", "Ärger")), missed=past, reason="why")
    message = ("alice", RoundMessage(1, 2, HASH), np.zeros((2, 4), "<u4"), b"")
    sent = (message, answer, [None, True, 1.5, HASH, HASH, [b""]])
    return {
        "enc": Target((enc("t", 7, "é", b"x", HASH),), lambda b: dec("t", b, schema), lambda v: enc("t", *v)),
        "list": Target(
            (enc_list("l", ("a", "b", "é")),), lambda b: dec_list("l", b, str, 9), lambda v: enc_list("l", tuple(v))
        ),
        "encoding": of(Encoding, Encoding(), Encoding(64, 1 << 20), Encoding(32)),
        "config": of(Config, *configs),
        "roster": of(Roster, roster, refusals=(EncodingError, PlanError)),
        "hello": of(Hello, Hello(HASH, 2, HASH, HASH, SIGNATURE)),
        "confirm": of(Confirm, Confirm(HASH, 2, HASH, b"sealed", SIGNATURE)),
        "masked": Target((masked(),), Masked.decode, None),
        "masked input": Target((masked_input(),), MaskedInput.decode, None),
        "purpose": Target((masked(), survivors.encode()), purpose_of, None),
        "keys": of(Keys, Keys(HASH, 1, 2, (4, 5), (HASH, HASH), (HASH, HASH), SIGNATURE)),
        "sharing": of(Sharing, Sharing(1, 0, 2, 3, (SHARE + SHARE,) * 2)),
        "dealt": of(Dealt, Dealt(HASH, 1, 2, (b"", b"sealed", b"more"))),
        "ack": of(Ack, Ack(HASH, 1, HASH, 2, SIGNATURE)),
        "survivors": of(Survivors, survivors),
        "survive": of(Survive, Survive(survivors.statement, 1, SIGNATURE)),
        "two inputs": of(TwoInputs, TwoInputs(survivors.statement, SIGNATURE, agreement.statement, SIGNATURE)),
        "quorum": of(Quorum, Quorum(survivors, (0, 1, 3), (SIGNATURE,) * 3)),
        "unmask": of(Unmask, Unmask(HASH, 3, 1, (0, 1, 3), bytes((0, 1, 0)), (SHARE,) * 3)),
        "share header": of(ShareHeader, header, words),
        "share": Target(shares, header_of, None),
        "sealed share": Target(shares, lambda b: unseal(HASH, b), None, (ProtocolError,)),
        "node survive": of(AgreementSignature, AgreementSignature(agreement, 1, SIGNATURE)),
        "proof": of(Proof, proof),
        "partial": of(Partial, Partial(proof, 1, np.arange(5, dtype="<u8"), 7)),
        "packed words": Target(
            (pack(np.array([-3, 70_000, 0], "<i8").view("<u8")).tobytes(),),
            lambda b: unpack(b, 3, 64),
            lambda words: pack(words).tobytes(),
        ),
        "form": of(Form, *forms),
        "line": Target(
            tuple(bytes(write(v)[0]) for v in sent),
            lambda b: read([b, *memory]),
            lambda v: bytes(write(v)[0]),
        ),
        "far line": Target((streamed([HASH, b"", SIGNATURE]), streamed([b""])), parts_of, streamed),
        "memory": Target(first, lambda b: _memo(_Chain("alice").body(b), [("x",)]), None, (ValueError, IndexError)),
        "own ledger": Target((own_ledger(),), read_own_ledger, None, (BrokenLedger,)),
        "ledger": Target((ledger(),), from_bytes, to_bytes, (BrokenLedger,)),
    }


def changed(draw: random.Random, valid: bytes, others: list[bytes]) -> bytes:
    """Returns a message with one to four changes."""
    data = bytearray(valid)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        place = draw.randrange(len(data) + 1)
        size = draw.choice((1, 1, 2, 4, 8, 32, len(data)))
        how = draw.randrange(9)
        if how == 0 and place < len(data):
            data[place] ^= 1 << draw.randrange(8)
        elif how == 1:
            data[place : place + size] = draw.randbytes(size)
        elif how == 2:
            del data[place : place + size]
        elif how == 3:
            data[place:place] = draw.randbytes(size)
        elif how == 4:
            del data[place:]
        elif how == 5:
            data[place:place] = data[place : place + size]
        elif how == 6:  # a length or a number at its limits
            number = draw.choice((0, 1, 2, len(data), 1 << 31, (1 << 32) - 1, draw.randrange(1 << 32)))
            data[place : place + 4] = struct.pack(">I", number % (1 << 32))
        elif how == 7:
            other = draw.choice(others)
            start = draw.randrange(len(other) + 1)
            data[place : place + size] = other[start : start + size]
        elif len(data) >= 16:  # two stretches trade places
            a, b = sorted(draw.sample(range(len(data)), 2))
            data = data[:a] + data[b : b + size] + data[a:b] + data[b + size :]
    return bytes(data)


def mend(name: str, message: bytes) -> bytes:
    """Returns a message whose hash fits, where one would keep all changes from the decoder behind it."""
    body = message.partition(b" ")[2]
    return b"%s %s" % (_Chain("alice").mark(body), body) if name == "memory" else message


def fuzz(name: str, target: Target, others: list[bytes], inputs: int, draw: random.Random) -> Counter[str]:
    """Tries a decoder; returns how many inputs it accepted and refused.

    Raises:
        AssertionError: It accepted bytes that are not those of the record it returned.
    """
    found: Counter[str] = Counter()
    for valid in target.valid:
        target.decode(valid)
    for turn in range(inputs):
        valid = target.valid[turn % len(target.valid)]
        message = draw.randbytes(draw.randrange(400)) if turn % 16 == 15 else changed(draw, valid, others)
        message = mend(name, message) if draw.randrange(4) else message
        try:
            record = target.decode(message)
        except target.refusals:
            found["refused"] += 1
            continue
        except BaseException as error:
            raise AssertionError(f"{name}: {type(error).__name__} for {message.hex()}") from error
        found["accepted"] += 1
        if target.again is not None and target.again(record) != message:
            raise AssertionError(f"{name}: accepted other bytes than its record has: {message.hex()}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="over all decoders together")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    draw, every = random.Random(seed), targets()
    others = [message for target in every.values() for message in target.valid]
    began, total = time.perf_counter(), Counter[str]()
    for name, target in every.items():
        found = fuzz(name, target, others, -(-options.inputs // len(every)), draw)
        total += found
        print(json.dumps({"decoder": name} | found), flush=True)
    seconds = time.perf_counter() - began
    print(f"seed {seed}: {total.total():,} inputs to {len(every)} decoders in {seconds:.0f} s, {dict(total)}")


if __name__ == "__main__":
    main()

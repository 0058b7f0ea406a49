"""The promises as pure functions over what was seen: each yields what broke it."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from soak.journal import HARNESS, Send, Window
from soak.master import Attempt, Subject

Found = Iterator[tuple[str, dict[str, Any]]]
Place = tuple[str, str]

WEBHOOK_TIMEOUT = 3.0
# Seconds in which what came while this process stood still is noted afterwards.
NOTED_WITHIN = 1.0
ERRORS = ('"level":"ERROR"', '"level":"CRITICAL"', "Traceback (most recent call last)")
# RSS of a pod that has warmed up may grow by this much, in bytes.
MEMORY_BOUND = 64 << 20


@dataclass(frozen=True)
class Stored:
    """A message as PostgreSQL has it; `origin` is what was first said, None where it is deleted."""

    id: str
    conversation_id: str
    seq: int
    sender_id: str
    client_message_id: str | None
    origin: str | None


def check_sends(sends: Sequence[Send], stored: Sequence[Stored]) -> Found:
    """Acknowledged means stored exactly once; nothing is stored twice, or without having been sent."""
    by_id = {one.id: one for one in stored}
    by_name: Counter[Any] = Counter(
        (one.conversation_id, one.sender_id, one.client_message_id) for one in stored if one.client_message_id
    )
    by_content = Counter(one.origin for one in stored if one.origin is not None)
    for send in sends:
        name = (send.conversation_id, send.sender_id, send.client_message_id)
        if by_content[send.content] > 1 or by_name[name] > 1:
            yield "nothing is stored twice", {"send": send}
        if send.seq is None:
            continue
        found = by_id.get(send.message_id or "")
        if found is None:
            yield "what is acknowledged is stored", {"send": send}
        elif (found.seq, found.conversation_id) != (send.seq, send.conversation_id) or found.origin not in {
            send.content,
            None,
        }:
            yield "what is acknowledged is stored as it was acknowledged", {"send": send, "stored": found}
    sent = {send.content for send in sends}
    for one in stored:
        if one.origin is not None and one.origin not in sent:
            yield "nothing is stored that was not sent", {"stored": one}


def check_order(
    emitted: Mapping[Place, Sequence[Send]], acknowledged: Mapping[Place, Sequence[Send]], stored: Sequence[Stored]
) -> Found:
    """Sends of one socket to one conversation are stored and acknowledged in the order in which they were sent."""
    seqs: dict[Any, int] = {one.origin: one.seq for one in stored if one.origin is not None}
    seqs |= {(one.sender_id, one.client_message_id): one.seq for one in stored if one.client_message_id}
    for place, sends in emitted.items():
        last: tuple[int, Send] | None = None
        for send in sends:
            # What went out more than once has no one place in the order.
            if send.emissions != 1:
                continue
            seq = send.seq or seqs.get(send.content) or seqs.get((send.sender_id, send.client_message_id))
            if seq is None:
                continue
            if last is not None and seq < last[0]:
                yield (
                    "sends of one socket are stored in the order in which they were sent",
                    {"socket": place[0], "conversation": place[1], "first": last[1], "then": send, "seq": seq},
                )
            last = (seq, send)
        places = {id(send): number for number, send in enumerate(sends)}
        order = [places[id(send)] for send in acknowledged.get(place, ())]
        if order != sorted(order):
            yield (
                "sends of one socket are acknowledged in the order in which they were sent",
                {"socket": place[0], "conversation": place[1], "order": order},
            )


def check_seqs(
    conversation_id: str, last_seq: int, last_message_seq: int, seqs: Iterable[tuple[int, bool]]
) -> Found:
    """A conversation's seqs are 1, 2, 3, … up to its head; each comes with whether it is a message's."""
    entries = sorted(seqs)
    if [seq for seq, _ in entries] != list(range(1, last_seq + 1)):
        counts = Counter(seq for seq, _ in entries)
        odd = [seq for seq in range(1, max(last_seq, *counts, 1) + 1) if counts[seq] != (seq <= last_seq)]
        yield "seqs have no gap", {"conversation": conversation_id, "lastSeq": last_seq, "odd": odd[:20]}
    latest = max((seq for seq, is_message in entries if is_message), default=0)
    if latest != last_message_seq:
        details = {"conversation": conversation_id, "head": last_message_seq, "latest message": latest}
        yield "the head knows the last message", details


def check_webhooks(attempts: Sequence[Attempt], committed: Collection[Subject]) -> Found:
    """Every committed event is sent at least once, nothing else is, signed, under one id."""
    ids: dict[Subject, set[str]] = defaultdict(set)
    subjects: dict[str, set[Subject]] = defaultdict(set)
    for one in attempts:
        ids[one.subject].add(one.id)
        subjects[one.id].add(one.subject)
        if not one.is_signed:
            yield "webhooks are signed", {"attempt": one}
    about = {found for found in ids if not found[0].startswith("user.")}
    for missing in sorted(set(committed) - about):
        yield "what is committed is told to the master", {"subject": missing}
    for odd in sorted(about - set(committed)):
        yield "the master is told nothing that was not committed", {"subject": odd}
    for found, names in ids.items():
        if len(names) > 1:
            yield "an event has one webhook-id", {"subject": found, "ids": sorted(names)}
    for name, found_subjects in subjects.items():
        if len(found_subjects) > 1:
            yield "a webhook-id is one event's", {"id": name, "subjects": sorted(found_subjects)}


def check_webhook_order(attempts: Sequence[Attempt], faults: Sequence[Window]) -> Found:
    """First attempts of one conversation start in the order of `seq`, each after the one before was done with.

    A worker gives an attempt up some time after it began it, which may be a while before it is noted here.

    An attempt of a worker that was killed or frozen may have started without having come here, and what comes
    while this process stands still is noted late, in any order.
    """
    stood_still = [fault for fault in faults if fault.target == HARNESS]
    excuses = [
        fault for fault in faults if fault.target.startswith("worker") and fault.kind in {"SIGKILL", "SIGSTOP"}
    ]
    seen: set[str] = set()
    last: dict[str, Attempt] = {}
    for one in attempts:
        if one.conversation_id is None or one.id in seen:
            continue
        seen.add(one.id)
        before = last.get(one.conversation_id)
        if before is not None and any(
            fault.start <= one.at and fault.end >= before.at - NOTED_WITHIN for fault in stood_still
        ):
            last[one.conversation_id] = max(before, one, key=lambda attempt: attempt.seq)
            continue
        if before is not None and one.seq < before.seq:
            if not any(fault.start <= one.at and fault.end >= before.at - 60 for fault in excuses):
                yield "first attempts start in the order of seq", {"first": before, "then": one}
            continue
        if before is not None:
            begun_at = min(before.at, before.signed_at or before.at)
            if one.at < min(before.answered_at or one.at, begun_at + WEBHOOK_TIMEOUT * 0.9):
                yield "a first attempt starts after the one before was answered", {"first": before, "then": one}
        last[one.conversation_id] = one


def check_presence_webhooks(attempts: Sequence[Attempt], online: Collection[str], users: Collection[str]) -> Found:
    """A user's transitions grow, and the last one says what is so."""
    last: dict[str, Attempt] = {}
    for one in attempts:
        if not one.event.startswith("user."):
            continue
        user = one.subject[1]
        before = last.get(user)
        if before is not None and (one.seq < before.seq or (one.seq == before.seq and one.id != before.id)):
            yield "the transitions of a user grow", {"first": before, "then": one}
        else:
            last[user] = one
    for user in sorted(users):
        said = last[user].event if user in last else "nothing"
        is_right = said == "user.online" if user in online else said != "user.online"
        if not is_right:
            yield "the last webhook says who is online", {"user": user, "is online": user in online, "said": said}


def check_log(name: str, lines: Iterable[str]) -> Found:
    """No process logs an error or a traceback; of what is logged again and again the first is given."""
    first: dict[str, str] = {}
    times: Counter[str] = Counter()
    for line in lines:
        if any(sign in line for sign in ERRORS):
            kind = _kind(line)
            first.setdefault(kind, line)
            times[kind] += 1
    for kind, line in first.items():
        text = line if len(line) < 1200 else f"{line[:400]} … {line[-800:]}"
        yield "nothing logs an error", {"process": name, "times": times[kind], "text": text}


def _kind(line: str) -> str:
    """Tell what an entry is about: its last line, without addresses, ids and numbers."""
    try:
        entry = json.loads(line)
        text = entry["logger"] + (entry.get("exception") or entry["message"]).strip().splitlines()[-1]
    except (ValueError, KeyError):
        text = line
    return re.sub(r"0x[0-9a-f]+|(conv|msg)_\w+|\d+", "", text)


def check_memory(name: str, samples: Sequence[int]) -> Found:
    """The RSS of one process, in bytes, is bounded: its end is compared with the middle of its first third."""
    if len(samples) < 6:
        return
    first = sorted(samples[: len(samples) // 3])
    if samples[-1] - first[len(first) // 2] > MEMORY_BOUND:
        yield "memory is bounded", {"process": name, "MiB": [size >> 20 for size in samples]}

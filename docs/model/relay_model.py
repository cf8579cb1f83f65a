"""Exhaustive search of the relay's protocol: can a target end up, or be seen, different from the rows?

Contract. Every order of steps that a configuration allows is tried, breadth first, so a violation is reported with
a shortest way to it. "No violation" is a proof for that configuration and for nothing larger. Pure computation: no
file, no network, no random number; the clock only times the runs. Exit code 0 only if every run ended as expected.
One file, longer than others here, so that it can be read from top to bottom and run anywhere.

The protocol (``relay/`` follows these steps in this order; the switch that turns a step off is in brackets):
 1. dispatch   one transaction: take change lines, look up who depends on the changed row as of now
               [dependents_at_dispatch], upsert the work rows, each with a new stamp [stamp_at_dispatch]
 2. token      take a number, create the token in the target, once per number [create_once], before step 3
               [create_before_lease]
 3. lease      put the token on free or expired work rows only [one_pair_of_hands]; a row keeps every earlier token
               that is not known to be revoked [remember_all_tokens]; remember the stamps
 4. revoke     remove the earlier tokens from the target, and wait for the answer, before step 5 [revoke_before_read]
 5. read       the rows, in a snapshot younger than lease and revoke [fresh_snapshot]
 6. write      the target refuses when the token is absent [fence]; no answer: steps 2 to 6 again under a new token, the
               old one remembered on the work row until it is revoked [new_token_after_unknown]
 7. settle     per work row: another token: leave it [settle_checks_token]; a newer stamp: free it
               [settle_checks_change]; otherwise delete it
 8. sweep      remove the own token from the target
An ordered target (--ordered: Qdrant) holds no tokens, so 2, 4 and 8 fall away. There the number is drawn in step 3 when
the rows are locked [number_under_lock], the target takes a write if its token is larger than the point's [fence], and
a removed point leaves a tombstone that bears the token [tombstones].

What is checked (numbers as in the list of invariants):
 I1 a state in which nothing is left to do shows the rows' last state; I2 (and I8) in every state a key that is neither
 queued nor in work is right in the target; I3 (I4 for a deletion) what was settled is never followed by something
 older; I7 a write that changes the target brings something newer, so a replay changes nothing; progress (--progress):
 from every state, without another fault, a state is reachable in which nothing is left to do.

Failure sequences, each found by turning one switch off (--off NAME --expect-violation prints it):
 sleeper (F07, F08), late request (F13), taker-over that dies before it revokes, two pairs of hands, late settle (F09),
 change between read and settle (F04), snapshot older than the claim, dependents looked up by the writer (F39), largest
 change id as stamp (F39 with commits out of id order), token created after the lease, token created twice, number
 drawn before the lock, late insert of a removed point.
"""

from __future__ import annotations

import argparse
import re
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import combinations, pairwise
from typing import NamedTuple, TypeVar

T = TypeVar("T")

KEYS = "AB"
DEPENDENT, DEPENDENCY = 1, 0  # row B names row A from its first version on
PAIR = 16  # B's projection is one number, version of B * PAIR + version of A: larger is newer
UNREAD = -1
FRESH = 90  # the token that a step has just made; `canonical` renumbers it


@dataclass(frozen=True)
class Countermeasures:
    """What the protocol does against each failure sequence; False leaves it out."""

    fence: bool = True  # the target refuses writes whose token is absent
    one_pair_of_hands: bool = True  # a leased key is claimed by nobody else
    settle_checks_token: bool = True
    settle_checks_change: bool = True
    remember_all_tokens: bool = True  # else a work row knows its last token only
    fresh_snapshot: bool = True  # else the rows are read in a snapshot older than the lease
    revoke_before_read: bool = True  # else read, then revoke
    new_token_after_unknown: bool = True  # else a write without an answer is repeated under the same token
    dependents_at_dispatch: bool = True  # else the writer's trigger looks them up
    stamp_at_dispatch: bool = True  # else settle compares the largest change id, as GREATEST(last_change, …) gives
    create_before_lease: bool = True
    create_once: bool = True  # else a token's creation is repeated when its answer is lost
    number_under_lock: bool = True  # ordered target: else the number is drawn before the rows are locked
    tombstones: bool = True  # ordered target: else a removed point leaves nothing that a late insert meets


@dataclass(frozen=True)
class Configuration:
    """One bounded world: what the writers do, and how many faults of each kind may happen."""

    name: str
    # Per writer its transactions in order; a transaction is the keys that it changes, (0,) is "A", (0, 1) is "A and B".
    writers: tuple[tuple[tuple[int, ...], ...], ...] = (((0,), (0,)),)
    dependents: bool = False
    ordered: bool = False  # the target has no transactions: it takes a write if its token is larger than the point's
    workers: int = 2
    lot: int = 2  # work rows per lease at most
    crashes: int = 1
    expiries: int = 1  # leases taken over while their owner lives; those of the dead cost nothing
    losses: int = 1  # answers lost: of a write, a settle, a token's creation
    sweeps: int = 0  # tokens removed by age while their owner may still write
    slow_dispatch: bool = False  # taking lines and committing the work rows are two steps
    split_writes: bool = False  # one target transaction per key, else one per lot
    on: Countermeasures = field(default_factory=Countermeasures)
    checks: tuple[str, ...] = ("I1", "I2", "I3", "I7")
    progress: bool = False
    violation: bool = False  # what is expected
    max_states: int = 5_000_000

    @property
    def keys(self) -> int:
        """Return how many keys the writers touch."""
        return 1 + max(key for script in self.writers for transaction in script for key in transaction)

    @property
    def creates_tokens(self) -> bool:
        """Tell whether the token is in the target when rows are leased with it."""
        return self.on.create_before_lease and not self.ordered

    def last_version(self, key: int) -> int:
        """Return the version that the last transaction on a key writes."""
        return sum(key in transaction for script in self.writers for transaction in script)

    def deletes(self, key: int, version: int) -> bool:
        """Tell whether a version is a deletion: the last of at least two (to the protocol it is a value)."""
        return version == self.last_version(key) > 1


class Line(NamedTuple):
    """A change line: its id (0 where ids are not looked at), the changed key, and whether the writer saw dependents."""

    change: int
    key: int
    dependents_seen: bool


class Writer(NamedTuple):
    """A session: the number of committed transactions, and the lines of the open one."""

    done: int
    open: tuple[Line, ...]


class Work(NamedTuple):
    """A work row: the token that leases it (0: free), earlier tokens not revoked, largest change id."""

    token: int
    earlier: tuple[int, ...]
    change: int


class Item(NamedTuple):
    """A key in a worker's lot: is the stamp still the one claimed; what was read; was it written."""

    key: int
    unchanged: bool
    value: int
    written: bool


class Worker(NamedTuple):
    """A worker: its phase, its token, what it leased, and which tokens it has to revoke."""

    phase: str
    token: int
    lot: tuple[Item, ...]
    revoke: tuple[int, ...]


class Request(NamedTuple):
    """A request that the target may still execute: a write, or (no values) the creation of its token."""

    token: int
    values: tuple[tuple[int, int], ...]


class Faults(NamedTuple):
    """How many faults have happened."""

    crashes: int = 0
    expiries: int = 0
    losses: int = 0
    sweeps: int = 0


class State(NamedTuple):
    """Everything that SQL, the target, the network and the workers know."""

    rows: tuple[int, ...]  # committed versions
    writers: tuple[Writer, ...]
    lines: tuple[Line, ...]  # committed change lines
    taken: tuple[tuple[Line, tuple[int, ...]], ...]  # by a dispatch not yet committed, with the keys it found
    work: tuple[Work | None, ...]
    workers: tuple[Worker, ...]
    requests: tuple[Request, ...]
    tokens: tuple[int, ...]  # present in the target
    written_by: tuple[int, ...]  # per key the token on the point (ordered targets only)
    target: tuple[int, ...]
    settled: tuple[int, ...]  # the newest settled so far (for I3)
    faults: Faults


class Step(NamedTuple):
    """A step: what happens («w0» and «t1» stand for a worker and a token), whether it is a fault, what results."""

    label: str
    fault: bool
    state: State


class Canonical(NamedTuple):
    """A state under the names that all states alike share, and the renaming that led there."""

    state: State
    workers: tuple[int, ...]  # new position -> old position
    tokens: dict[int, int]  # old name -> new name


IDLE = Worker("idle", 0, (), ())


def initial(c: Configuration) -> State:
    """Return the state in which rows and target agree on version 0."""
    zeros = (0,) * c.keys
    writers = tuple(Writer(0, ()) for _ in c.writers)
    return State(zeros, writers, (), (), (None,) * c.keys, (IDLE,) * c.workers, (), (), zeros, zeros, zeros, Faults())


# ---- What a row becomes ----------------------------------------------------------------------------------------------


def names_dependency(c: Configuration, rows: tuple[int, ...]) -> bool:
    """Tell whether row B, as committed in `rows`, depends on row A."""
    return c.dependents and rows[DEPENDENT] > 0 and not c.deletes(DEPENDENT, rows[DEPENDENT])


def project(c: Configuration, rows: tuple[int, ...], key: int) -> int:
    """Return what the target has to show for a key; larger is newer."""
    if not (c.dependents and key == DEPENDENT):
        return rows[key]
    return rows[key] * PAIR + (rows[DEPENDENCY] if names_dependency(c, rows) else 0)


def show(c: Configuration, key: int, value: int) -> str:
    """Return a projection in words."""
    version, other = divmod(value, PAIR) if c.dependents and key == DEPENDENT else (value, 0)
    text = f"{KEYS[key]}{version}" + (" (deleted)" if c.deletes(key, version) else "")
    return text + (f" with A{other}" if c.dependents and key == DEPENDENT and version > 0 else "")


# ---- The steps of everybody ------------------------------------------------------------------------------------------


def successors(c: Configuration, s: State) -> Iterator[Step]:
    """Yield every step that may come next."""
    yield from writer_steps(c, s)
    yield from dispatch_steps(c, s)
    yield from network_steps(c, s)
    for index, worker in enumerate(s.workers):
        yield from PHASES[worker.phase](c, s, index)
        if worker.phase != "idle" and s.faults.crashes < c.crashes:
            yield from crash_steps(c, s, index)


def put(sequence: tuple[T, ...], index: int, value: T) -> tuple[T, ...]:
    """Return the tuple with one element replaced."""
    return (*sequence[:index], value, *sequence[index + 1 :])


def without(sequence: tuple[T, ...], value: T) -> tuple[T, ...]:
    """Return the tuple with one occurrence of a value removed."""
    index = sequence.index(value)
    return sequence[:index] + sequence[index + 1 :]


# ---- Writers and dispatch --------------------------------------------------------------------------------------------


def writer_steps(c: Configuration, s: State) -> Iterator[Step]:
    """Transactions begin and commit at any time; a row lock keeps two open ones off the same key."""
    locked = {line.key for writer in s.writers for line in writer.open}
    for index, (writer, script) in enumerate(zip(s.writers, c.writers, strict=True)):
        if writer.open:
            yield commit(c, s, index)
        elif writer.done < len(script) and locked.isdisjoint(script[writer.done]):
            # The trigger writes the lines now, so their ids are in the order of the statements, not of the commits.
            lines = tuple(change_line(c, s, key, script[writer.done]) for key in script[writer.done])
            label = f"session {index + 1} changes {' and '.join(KEYS[line.key] for line in lines)}, uncommitted"
            yield Step(label, False, s._replace(writers=put(s.writers, index, Writer(writer.done, lines))))


def change_line(c: Configuration, s: State, key: int, changing: tuple[int, ...]) -> Line:
    """Return the line that the trigger writes; what it sees are committed rows and those of its own transaction."""
    if c.on.stamp_at_dispatch:
        change = 0
    else:
        change = 1 + key + c.keys * sum(writer.done + bool(writer.open) for writer in s.writers)
    own = tuple(version + (other in changing) for other, version in enumerate(s.rows))
    seen = not c.on.dependents_at_dispatch and key == DEPENDENCY and names_dependency(c, own)
    return Line(change, key, seen)


def commit(c: Configuration, s: State, index: int) -> Step:
    """Return the step that makes a transaction's rows and change lines visible, at once."""
    writer, rows = s.writers[index], s.rows
    for line in writer.open:
        rows = put(rows, line.key, rows[line.key] + 1)
    changed = " and ".join(show(c, line.key, project(c, rows, line.key)) for line in writer.open)
    writers = put(s.writers, index, Writer(writer.done + 1, ()))
    lines = tuple(sorted(s.lines + writer.open))
    return Step(f"session {index + 1} commits {changed}", False, s._replace(rows=rows, writers=writers, lines=lines))


def dispatch_steps(c: Configuration, s: State) -> Iterator[Step]:
    """Change lines become work, one line at a time: several at once are the same steps without others between."""
    for line in sorted(set(s.lines)):
        keys = keys_to_queue(c, s, line)
        text, rest = f"the change of {KEYS[line.key]}", s._replace(lines=without(s.lines, line))
        if c.slow_dispatch:  # the lookup is as old as it may be: right after the line was taken
            yield Step(f"a dispatch takes {text}", False, rest._replace(taken=tuple(sorted((*s.taken, (line, keys))))))
        else:
            yield Step(f"{text} is dispatched, {names(keys)} queued", False, upsert_work(c, rest, line, keys))
    for line, keys in sorted(set(s.taken)):
        rest = s._replace(taken=without(s.taken, (line, keys)))
        yield Step(f"a dispatch commits, {names(keys)} queued", False, upsert_work(c, rest, line, keys))
        if s.faults.crashes < c.crashes:
            back = rest._replace(lines=tuple(sorted((*s.lines, line))))
            yield Step("a dispatch dies", True, back._replace(faults=one_more(s.faults, "crashes")))


def keys_to_queue(c: Configuration, s: State, line: Line) -> tuple[int, ...]:
    """Return the changed key and the keys that depend on it."""
    if line.key != DEPENDENCY or not c.dependents:
        return (line.key,)
    found = names_dependency(c, s.rows) if c.on.dependents_at_dispatch else line.dependents_seen
    return (line.key, DEPENDENT) if found else (line.key,)


def upsert_work(c: Configuration, s: State, line: Line, keys: tuple[int, ...]) -> State:
    """Return the state after the upsert; a leased row keeps its lease, its stamp is another one from now on.

    Stamps are unique and only compared for equality, so whether a worker's is still the row's says all there is.
    """
    work, workers = s.work, s.workers
    for key in keys:
        row = work[key]
        if row is None:
            work = put(work, key, Work(0, (), line.change))
        elif c.on.stamp_at_dispatch or line.change > row.change:
            work = put(work, key, row._replace(change=line.change))
            workers = stamp_differs(workers, key)
    return s._replace(work=work, workers=workers)


def stamp_differs(workers: tuple[Worker, ...], key: int) -> tuple[Worker, ...]:
    """Return the workers, for each of whom a key's stamp is no longer the one he claimed."""
    return tuple(
        worker._replace(lot=tuple(item._replace(unchanged=False) if item.key == key else item for item in worker.lot))
        for worker in workers
    )


# ---- The network, the target's housekeeping, crashes -----------------------------------------------------------------


def network_steps(c: Configuration, s: State) -> Iterator[Step]:
    """Requests whose answer nobody waits for run at any time, or never; tokens are swept by age."""
    for request in sorted(set(s.requests)):
        rest = s._replace(requests=without(s.requests, request))
        if not request.values:
            late = rest._replace(tokens=tuple(sorted({*s.tokens, request.token})))
            yield Step(f"late, a request creates «t{request.token}»", False, late)
        elif accepts(c, s, request.token):
            label = f"late, a request under «t{request.token}» writes {shown(c, request.values)}"
            yield Step(label, False, apply(c, rest, request))
    if s.faults.sweeps < c.sweeps:
        for token in s.tokens:
            swept = s._replace(tokens=without(s.tokens, token), faults=one_more(s.faults, "sweeps"))
            yield Step(f"«t{token}» is swept by age", True, swept)


def accepts(c: Configuration, s: State, token: int) -> bool:
    """Tell whether the target lets a token write; it looks and writes under one lock. An ordered one never tells."""
    return not c.on.fence or c.ordered or token in s.tokens


def apply(c: Configuration, s: State, request: Request) -> State:
    """Return the state after the target has replaced the fragments of some keys, an ordered one those it takes."""
    target, written_by = s.target, s.written_by
    for key, value in request.values:
        if c.ordered and c.on.fence:
            if request.token <= written_by[key]:
                continue
            gone = deleted(c, key, value) and not c.on.tombstones
            written_by = put(written_by, key, 0 if gone else request.token)
        target = put(target, key, value)
    return s._replace(target=target, written_by=written_by)


def crash_steps(c: Configuration, s: State, index: int) -> Iterator[Step]:
    """A worker dies, and comes back as a new one; a request that he has sent may outlive him."""
    worker = s.workers[index]
    dead = s._replace(workers=put(s.workers, index, IDLE), faults=one_more(s.faults, "crashes"))
    yield Step(f"«w{index}» dies ({worker.phase})", True, dead)
    if worker.phase == "read":
        request = Request(worker.token, next_write(c, worker))
        sent = dead._replace(requests=tuple(sorted((*s.requests, request))))
        yield Step(f"«w{index}» sends {shown(c, request.values)} and dies", True, sent)


def one_more(faults: Faults, kind: str) -> Faults:
    """Return the faults with one more of a kind."""
    return faults._replace(**{kind: getattr(faults, kind) + 1})


# ---- A worker, phase by phase ----------------------------------------------------------------------------------------


def idle_steps(c: Configuration, s: State, index: int) -> Iterator[Step]:
    """Claim; without a fresh snapshot, the rows are read before it."""
    if c.ordered and not c.on.number_under_lock and any(s.work):
        workers = put(s.workers, index, Worker("numbered", FRESH, (), ()))
        yield Step(f"«w{index}» draws «t{FRESH}»", False, s._replace(workers=workers))
    elif c.on.fresh_snapshot:
        yield from lease_steps(c, s, index)
    elif any(s.work):
        lot = tuple(Item(key, True, project(c, s.rows, key), False) for key in range(c.keys))
        workers = put(s.workers, index, Worker("snapshot", 0, lot, ()))
        yield Step(f"«w{index}» opens a snapshot", False, s._replace(workers=workers))


def lease_steps(c: Configuration, s: State, index: int) -> Iterator[Step]:
    """Create a token and lease rows that are free, or whose lease is over; `SKIP LOCKED` may give any of them.

    Creating and leasing are one step here: between them nobody else knows the number, so nothing can be told apart.
    (In an ordered target the number's place matters: there, draw and lease are one step because the rows are locked.)
    A dead worker's lease runs out at no cost (`canonical` frees it); that of a living one costs an expiry.
    """
    alive = {worker.token for worker in s.workers if worker.token}
    queued = [key for key, row in enumerate(s.work) if row]
    for size in range(1, min(c.lot, len(queued)) + 1):
        for keys in combinations(queued, size):
            rows = [row for key in keys if (row := s.work[key])]
            sleepers = {row.token for row in rows if row.token in alive}
            expiries = s.faults.expiries + len(sleepers) * c.on.one_pair_of_hands
            if expiries <= c.expiries:
                leased = lease(c, s._replace(faults=s.faults._replace(expiries=expiries)), index, keys)
                new = s.workers[index].token or FRESH
                verb = f"leases {names(keys)} with «t{new}»" + ", just created" * c.creates_tokens
                how = ", over" if c.on.one_pair_of_hands else ", beside"
                over = "".join(f"{how} «t{token}»" for token in sorted(sleepers))
                yield Step(f"«w{index}» {verb}{over}", False, leased)


def lease(c: Configuration, s: State, index: int, keys: tuple[int, ...]) -> State:
    """Return the state after a worker has put a new token on some work rows."""
    alive = {worker.token for worker in s.workers if worker.token}
    work, revoke, token = s.work, set[int](), s.workers[index].token or FRESH
    for key in keys:
        row = work[key]
        assert row
        # Without "one pair of hands" the key of a living worker is simply claimed a second time: nothing is taken over.
        before = {row.token} if row.token and (c.on.one_pair_of_hands or row.token not in alive) else set()
        earlier = {*row.earlier, *before} if c.on.remember_all_tokens else before
        revoke |= earlier
        work = put(work, key, Work(token, tuple(sorted(earlier)), row.change))
    values = {item.key: item.value for item in s.workers[index].lot if s.workers[index].phase == "snapshot"}
    lot = tuple(Item(key, True, values.get(key, UNREAD), False) for key in keys)
    phase = "revoked" if c.ordered else "leased" if c.on.create_before_lease else "uncreated"
    worker = Worker(phase, token, lot, tuple(sorted(revoke)))
    tokens = (*s.tokens, token) if c.creates_tokens else s.tokens
    return s._replace(work=work, tokens=tokens, workers=put(s.workers, index, worker))


def uncreated_steps(_c: Configuration, s: State, index: int) -> Iterator[Step]:
    """Create the token after the lease (only without `create_before_lease`)."""
    worker = s.workers[index]
    workers = put(s.workers, index, worker._replace(phase="leased"))
    yield Step(
        f"«w{index}» creates «t{worker.token}»", False, s._replace(tokens=(*s.tokens, worker.token), workers=workers)
    )


def leased_steps(c: Configuration, s: State, index: int) -> Iterator[Step]:
    """Revoke in the target; its removal may be repeated and late, so a lost answer needs no step of its own."""
    worker = s.workers[index]
    if not c.on.create_once and s.faults.losses < c.losses and worker.lot[0].value == UNREAD:
        again = s._replace(faults=one_more(s.faults, "losses"), requests=(*s.requests, Request(worker.token, ())))
        yield Step(f"the creation of «t{worker.token}» was sent twice, one is still out", True, again)
    if not c.on.revoke_before_read and worker.lot[0].value == UNREAD:
        yield read(c, s, index)
        return
    known = worker.lot[0].value != UNREAD
    tokens = tuple(token for token in s.tokens if token not in worker.revoke)
    workers = put(s.workers, index, worker._replace(phase="read" if known else "revoked", revoke=()))
    revoked = " and ".join(f"«t{token}»" for token in worker.revoke) or "nothing"
    yield Step(f"«w{index}» revokes {revoked}", False, s._replace(tokens=tokens, workers=workers))
    yield give_up(s, index, f"«w{index}» can't reach the target, frees its rows", fault=True)


def revoked_steps(c: Configuration, s: State, index: int) -> Iterator[Step]:
    """Read, in a snapshot that is younger than lease and revoke."""
    yield read(c, s, index)


def read(c: Configuration, s: State, index: int) -> Step:
    """Return the step that reads a lot's rows, and what they depend on, in one snapshot."""
    worker = s.workers[index]
    lot = tuple(item._replace(value=project(c, s.rows, item.key)) for item in worker.lot)
    phase = "read" if worker.phase == "revoked" else worker.phase
    label = f"«w{index}» reads {shown(c, tuple((item.key, item.value) for item in lot))}"
    return Step(label, False, s._replace(workers=put(s.workers, index, worker._replace(phase=phase, lot=lot))))


def read_steps(c: Configuration, s: State, index: int) -> Iterator[Step]:
    """Write; the target may refuse, and the answer may be lost."""
    worker = s.workers[index]
    values = next_write(c, worker)
    if accepts(c, s, worker.token):
        sent = {key for key, _ in values}
        lot = tuple(item._replace(written=item.written or item.key in sent) for item in worker.lot)
        phase = "written" if all(item.written for item in lot) else "read"
        workers = put(s.workers, index, worker._replace(phase=phase, lot=lot))
        applied = apply(c, s, Request(worker.token, values))
        silent = ", silently refused" * (c.ordered and any(worker.token <= s.written_by[key] for key in sent))
        yield Step(f"«w{index}» writes {shown(c, values)}{silent}", False, applied._replace(workers=workers))
    else:
        yield give_up(s, index, f"«w{index}» is refused, frees what is still its own", fault=False)
    if s.faults.losses < c.losses:
        unread = tuple(item._replace(value=UNREAD, written=False) for item in worker.lot)
        after = Worker("unknown" if c.on.new_token_after_unknown else "revoked", worker.token, unread, ())
        requests = tuple(sorted((*s.requests, Request(worker.token, values))))
        lost = s._replace(workers=put(s.workers, index, after), requests=requests, faults=one_more(s.faults, "losses"))
        yield Step(f"«w{index}» sends {shown(c, values)}, no answer", True, lost)


def next_write(c: Configuration, worker: Worker) -> tuple[tuple[int, int], ...]:
    """Return what a worker's next target transaction writes: the whole lot, or its first unwritten key."""
    values = tuple((item.key, item.value) for item in worker.lot if not item.written)
    return values[:1] if c.split_writes else values


def unknown_steps(c: Configuration, s: State, index: int) -> Iterator[Step]:
    """Go on under a new token, with what is still ours; the old token is one of those to revoke."""
    worker = s.workers[index]
    ours = tuple(item.key for item in worker.lot if (row := s.work[item.key]) and row.token == worker.token)
    if not ours:
        yield Step(f"«w{index}» has lost its rows", False, s._replace(workers=put(s.workers, index, IDLE)))
        return
    # As if the old owner were another worker who has died: his token is taken over like anyone's.
    renewed = lease(c, s._replace(workers=put(s.workers, index, IDLE)), index, ours)
    yield Step(f"«w{index}» puts a new token, «t{FRESH}», on its {names(ours)}", False, renewed)


def written_steps(c: Configuration, s: State, index: int) -> Iterator[Step]:
    """Settle; a settle whose answer was lost is repeated."""
    settled = settle(c, s, index)
    # Its token goes now; nothing that could still arrive bears it, so `canonical` has dropped it before.
    done = settled._replace(workers=put(settled.workers, index, IDLE))
    yield Step(f"«w{index}» settles {names(tuple(item.key for item in s.workers[index].lot))}", False, done)
    if s.faults.losses < c.losses:
        again = settled._replace(faults=one_more(s.faults, "losses"))
        yield Step(f"«w{index}» settles, no answer, will settle again", True, again)


def settle(c: Configuration, s: State, index: int) -> State:
    """Return the state after settling: per row leave, free or delete it."""
    worker = s.workers[index]
    for item in worker.lot:
        row = s.work[item.key]
        if row is None or (c.on.settle_checks_token and row.token != worker.token):
            continue
        if c.on.settle_checks_change and not item.unchanged:
            s = s._replace(work=put(s.work, item.key, row._replace(token=0)))
        else:
            s = s._replace(work=put(s.work, item.key, None), workers=stamp_differs(s.workers, item.key))
            if "I3" not in c.checks:
                continue
            # Only now has it settled: a freed row is still queued. What counts is what the target shows, which readers
            # see, and not what this worker believes it wrote.
            s = s._replace(settled=put(s.settled, item.key, max(s.settled[item.key], s.target[item.key])))
    return s


def give_up(s: State, index: int, label: str, *, fault: bool) -> Step:
    """Return the step that frees the rows a worker still holds; what they remember stays."""
    work, token = s.work, s.workers[index].token
    for item in s.workers[index].lot:
        row = work[item.key]
        if row and row.token == token:
            work = put(work, item.key, row._replace(token=0))
    return Step(label, fault, s._replace(work=work, workers=put(s.workers, index, IDLE)))


PHASES: dict[str, Callable[[Configuration, State, int], Iterator[Step]]] = {
    "idle": idle_steps,
    "snapshot": lease_steps,
    "numbered": lease_steps,
    "uncreated": uncreated_steps,
    "leased": leased_steps,
    "revoked": revoked_steps,
    "read": read_steps,
    "unknown": unknown_steps,
    "written": written_steps,
}


def names(keys: tuple[int, ...]) -> str:
    """Return keys in words."""
    return " and ".join(KEYS[key] for key in keys)


def shown(c: Configuration, values: tuple[tuple[int, int], ...]) -> str:
    """Return projections in words."""
    return " and ".join(show(c, key, value) for key, value in values)


# ---- States that are alike -------------------------------------------------------------------------------------------


def canonical(c: Configuration, s: State) -> Canonical:
    """Return the state that stands for all that differ in names, or in what can have no effect any more.

    Workers are alike, and so are tokens. A token under which nothing can be written any more (absent in the target, or
    its worker dead or past the write, with no request out) needs no revoking: it is dropped where it is remembered. A
    lease by a token that nobody bears is a free row. Requests that will be refused are dropped.
    """
    returnable = {r.token for r in s.requests if not r.values} | {w.token for w in s.workers if w.phase == "uncreated"}
    present = {*s.tokens, *returnable}
    held = {worker.token for worker in s.workers if worker.token}
    out = {r.token for r in s.requests if r.values and may_write(c, s, r, present)}
    writing = {worker.token for worker in s.workers if worker.phase in BEFORE_WRITE}
    able = (writing | out) & present if c.on.fence and not c.ordered else set[int]()
    requests = [r for r in s.requests if (may_write(c, s, r, present) if r.values else r.token in able)]

    def rank(index: int) -> tuple[object, ...]:
        worker = s.workers[index]
        leases = tuple(row is not None and row.token == worker.token for row in s.work)
        age = worker.token if c.ordered else 0  # there tokens keep their order, so it tells workers apart
        to_revoke = sum(token in able for token in worker.revoke)
        return (worker.phase, worker.lot, worker.token in able, leases, to_revoke, age)

    order = sorted(range(len(s.workers)), key=rank)
    tokens = ranked(s, held | out) if c.ordered else numbered([s.workers[old].token for old in order], requests)

    def renamed(old: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted([tokens[token] for token in old if token in able])) if old else ()

    work = tuple(row and Work(tokens.get(row.token, 0), renamed(row.earlier), row.change) for row in s.work)
    workers = tuple(
        Worker(worker.phase, tokens.get(worker.token, 0), worker.lot, renamed(worker.revoke))
        for worker in [s.workers[old] for old in order]
    )
    renumbered = tuple(sorted([Request(tokens[request.token], request.values) for request in requests]))
    written_by = tuple([tokens.get(token, 0) for token in s.written_by])
    state = s._replace(work=work, workers=workers, requests=renumbered, tokens=renamed(s.tokens), written_by=written_by)
    return Canonical(state, tuple(order), tokens)


def may_write(c: Configuration, s: State, request: Request, present: set[int]) -> bool:
    """Tell whether a request that is out can still change the target, now or later."""
    if not c.on.fence:
        return True
    if c.ordered:
        return any(request.token > s.written_by[key] for key, _ in request.values)
    return request.token in present


def numbered(of_workers: list[int], requests: list[Request]) -> dict[int, int]:
    """Return new names for tokens: a worker's is his place, those of requests alone come after."""
    tokens = {token: place + 1 for place, token in enumerate(of_workers) if token}
    fresh = len(of_workers) + 1
    for request in sorted(requests, key=lambda r: (r.values, r.token)):
        if request.token not in tokens:
            tokens[request.token] = fresh
            fresh += 1
    return tokens


def ranked(s: State, live: set[int]) -> dict[int, int]:
    """Return new names for tokens that keep their order; one on a point that is below all live ones is as none."""
    least = min(live, default=sys.maxsize)
    known = sorted(live | {token for token in s.written_by if token > least})
    return {token: place + 1 for place, token in enumerate(known)}


BEFORE_WRITE = frozenset({"uncreated", "leased", "revoked", "read"})


# ---- What must hold --------------------------------------------------------------------------------------------------


def violated(c: Configuration, before: State, s: State) -> str | None:
    """Return the invariant that a step has broken, in words."""
    for key, value in enumerate(s.target):
        if value < s.settled[key] and "I3" in c.checks:
            kind = "I4: a deletion that had settled is undone" if deleted(c, key, s.settled[key]) else "I3"
            settled = show(c, key, s.settled[key])
            return f"{kind}: settled on {settled}, the target shows {show(c, key, value)}"
        if value < before.target[key] and "I7" in c.checks:
            return f"I7: the target goes back from {show(c, key, before.target[key])} to {show(c, key, value)}"
        expected = project(c, s.rows, key)
        if value == expected:
            continue
        if "I2" in c.checks and not pending(c, s, key):
            return f"I2: nothing is queued, the row is {show(c, key, expected)}, the target {show(c, key, value)}"
        if "I1" in c.checks and quiet(s):
            return f"I1: at rest, the row is {show(c, key, expected)}, the target {show(c, key, value)}"
    return None


def deleted(c: Configuration, key: int, value: int) -> bool:
    """Tell whether a projection is that of a deleted row."""
    return c.deletes(key, value // PAIR if c.dependents and key == DEPENDENT else value)


def pending(c: Configuration, s: State, key: int) -> bool:
    """Tell whether the queue still names a key, or something it may depend on."""
    if s.work[key]:
        return True
    causes = {key, DEPENDENCY} if c.dependents and key == DEPENDENT else {key}
    return any(line.key in causes for line in s.lines) or any(line.key in causes for line, _ in s.taken)


def quiet(s: State) -> bool:
    """Tell whether nothing is left to do."""
    busy = s.lines or s.taken or s.requests or any(s.work) or any(writer.open for writer in s.writers)
    return not busy and all(worker.phase == "idle" for worker in s.workers)


# ---- The search ------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """What a search found."""

    configuration: Configuration
    states: int
    seconds: float
    megabytes: int
    violation: str | None
    complete: bool  # False: given up at `max_states`, which proves nothing
    trace: list[str]

    @property
    def as_expected(self) -> bool:
        """Tell whether there is a violation exactly where one was expected."""
        return self.complete and (self.violation is not None) == self.configuration.violation


def search(c: Configuration) -> Result:
    """Visit every state that a configuration can reach, nearest first, until one violates an invariant."""
    started = time.perf_counter()
    start = canonical(c, initial(c)).state
    came_from: dict[State, State | None] = {start: None}
    calm: dict[State, list[State]] = {}  # by state, those that reach it without a fault (only to check progress)
    todo = deque([start])
    violation, path = None, list[State]()
    while todo and not violation:
        state = todo.popleft()
        for step in successors(c, state):
            following = canonical(c, step.state).state
            if c.progress and not step.fault:
                calm.setdefault(following, []).append(state)
            if following in came_from and following.target == state.target:
                continue
            violation = violated(c, state, following)
            if violation:
                path = [*way_to(came_from, state), following]
                break
            if following not in came_from:
                came_from[following] = state
                todo.append(following)
        if len(came_from) > c.max_states:
            break
    complete = violation is not None or not todo
    if c.progress and complete and not violation and (stuck := first_stuck(came_from, calm)):
        violation, path = "progress: from here, rest can't be reached", way_to(came_from, stuck)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return Result(c, len(came_from), time.perf_counter() - started, megabytes, violation, complete, narrate(c, path))


def way_to(came_from: dict[State, State | None], state: State) -> list[State]:
    """Return the states from the initial one to this."""
    path, at = [state], came_from[state]
    while at is not None:
        path.append(at)
        at = came_from[at]
    return path[::-1]


def first_stuck(came_from: dict[State, State | None], calm: dict[State, list[State]]) -> State | None:
    """Return the nearest state from which no way without faults leads to rest, or None."""
    todo = [state for state in came_from if quiet(state)]
    good = set(todo)
    while todo:
        for earlier in calm.get(todo.pop(), []):
            if earlier not in good:
                good.add(earlier)
                todo.append(earlier)
    return next((state for state in came_from if state not in good), None)


def narrate(c: Configuration, path: list[State]) -> list[str]:
    """Return the steps of a path in words; workers and tokens keep their names from step to step."""
    people = [f"w{index + 1}" for index in range(c.workers)]
    numbers: dict[int, int] = {}
    lines, created = [], 0
    for state, following in pairwise(path):
        for step in successors(c, state):
            renaming = canonical(c, step.state)
            if renaming.state == following:
                break
        else:
            raise AssertionError("a path's state is no successor of the one before")
        if FRESH in renaming.tokens:
            created += 1
            numbers[FRESH] = created
        lines.append(MARK.sub(partial(named, people, numbers), step.label))
        people = [people[old] for old in renaming.workers]
        numbers = {new: numbers[old] for old, new in renaming.tokens.items()}
    return lines


MARK = re.compile(r"«([wt])(\d+)»")


def named(people: list[str], numbers: dict[int, int], mark: re.Match[str]) -> str:
    """Return the lasting name of a worker or token."""
    number = int(mark[2])
    return people[number] if mark[1] == "w" else f"token {numbers[number]}"


# ---- Sets of configurations ------------------------------------------------------------------------------------------

A_TWICE = (((0,), (0,)),)
A_AND_B = (((0,),), ((1,),))
A_TWICE_AND_B = (((0,), (0,)), ((1,),))
BOTH_THEN_A = (((0, 1), (0,)),)
ORDERED_CHECKS = ("I1", "I2", "I3")  # an ordered target may go back before it is settled, see README.md


def holding() -> list[Configuration]:
    """Return the standard configurations in which nothing may be violated."""
    dependent = Configuration("a row and its dependent", A_AND_B, dependents=True)
    ordered = Configuration("ordered target", A_TWICE, ordered=True, checks=ORDERED_CHECKS)
    return [
        Configuration("one key, many faults", A_TWICE, crashes=2, expiries=2, losses=2, sweeps=1),
        Configuration("one key, three workers", A_TWICE, workers=3, crashes=1, expiries=2),
        Configuration("two keys, a lost answer", A_TWICE_AND_B, crashes=0),
        Configuration("two keys in one transaction, a write each", BOTH_THEN_A, losses=0, split_writes=True),
        replace(dependent, name="a row and its dependent, slow dispatch", slow_dispatch=True),
        replace(dependent, name="a row changed twice and its dependent", writers=A_TWICE_AND_B, crashes=0, losses=0),
        replace(ordered, name="ordered target, one key", crashes=2, expiries=2),
        replace(ordered, name="ordered target, a row and its dependent", writers=A_AND_B, dependents=True, losses=0),
        Configuration("progress, one key", A_TWICE, sweeps=1, progress=True),
        replace(dependent, name="progress, a row and its dependent", losses=0, progress=True),
    ]


def broken() -> list[Configuration]:
    """Return, for each countermeasure, a configuration that is violated without it."""
    one_key = Configuration("", A_TWICE, checks=("I1",))
    dependent = Configuration("", A_AND_B, dependents=True, crashes=0, expiries=0, losses=0, checks=("I1",))
    ordered = replace(one_key, ordered=True)
    cases = dict.fromkeys(COUNTERMEASURES, one_key)
    cases |= dict.fromkeys(("dependents_at_dispatch", "stamp_at_dispatch"), dependent)
    cases |= dict.fromkeys(("number_under_lock", "tombstones"), ordered)
    cases["revoke_before_read"] = replace(one_key, checks=("I7",))  # the only harm: readers see a step back
    configurations = [replace(c, name=f"without {off}", on=without_one(off)) for off, c in cases.items()]
    configurations.append(replace(one_key, name="without fence, settled", checks=("I3",), on=without_one("fence")))
    ordered = replace(ordered, checks=ORDERED_CHECKS)
    configurations += [
        replace(ordered, name=f"ordered target without {off}", on=without_one(off))
        for off in ("fence", "settle_checks_token", "settle_checks_change")
    ]
    return [replace(c, violation=True) for c in configurations]


def deep() -> list[Configuration]:
    """Return larger configurations in which nothing may be violated; minutes and gigabytes."""
    return [
        Configuration(
            "deep: one key, three versions", (((0,), (0,), (0,)),), crashes=2, expiries=2, losses=2, sweeps=1
        ),
        Configuration("deep: one key, three workers", A_TWICE, workers=3, crashes=2, expiries=2, losses=2),
        Configuration("deep: two keys", A_TWICE_AND_B),
        Configuration("deep: two keys, a write each", A_TWICE_AND_B, split_writes=True),
        Configuration("deep: dependent", A_TWICE_AND_B, dependents=True),
        Configuration("deep: dependent, slow dispatch", A_TWICE_AND_B, dependents=True, losses=0, slow_dispatch=True),
        Configuration("deep: ordered, losses", A_AND_B, dependents=True, ordered=True, checks=ORDERED_CHECKS),
        Configuration("deep: ordered", A_TWICE_AND_B, dependents=True, ordered=True, losses=0, checks=ORDERED_CHECKS),
    ]


COUNTERMEASURES = tuple(option.name for option in fields(Countermeasures))


def without_one(*off: str) -> Countermeasures:
    """Return the countermeasures with some turned off."""
    return replace(Countermeasures(), **dict.fromkeys(off, False))


# ---- Command line ----------------------------------------------------------------------------------------------------


def run(configurations: list[Configuration], processes: int, *, traces: bool) -> bool:
    """Search configurations side by side, print what each gave, and tell whether all is as expected."""
    started, good = time.perf_counter(), 0
    # A process per search: its memory goes back, and the figure printed is its own.
    with ProcessPoolExecutor(processes, max_tasks_per_child=1) as pool:
        for result in pool.map(search, configurations):
            report(result, trace=traces or not result.as_expected)
            good += result.as_expected
    print(f"{good} of {len(configurations)} as expected, {time.perf_counter() - started:.0f} s")
    return good == len(configurations)


def report(result: Result, *, trace: bool) -> None:
    """Print one search's outcome."""
    verdict = (
        "as expected" if result.as_expected else "NOT AS EXPECTED" if result.complete else "NOT SEARCHED TO THE END"
    )
    figures = f"{result.states:>9,} states {result.seconds:6.1f} s {result.megabytes:>5} MB"
    print(f"{result.configuration.name:<46}{figures}  {verdict}: {result.violation or 'no violation'}", flush=True)
    if trace:
        for number, line in enumerate(result.trace, 1):
            print(f"    {number:>2}. {line}")


def parse_writers(text: str) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Return the writers of `A A | AB`: two sessions, one changes A twice, one A and B in one transaction.

    Raises:
        ValueError: a letter is not a key.
    """
    return tuple(
        tuple(tuple(sorted(KEYS.index(key) for key in transaction)) for transaction in script.split())
        for script in text.split("|")
    )


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Search the relay's protocol exhaustively.")
    parser.add_argument("--suite", action="store_true", help="the standard set: about a minute on two cores")
    parser.add_argument("--deep", action="store_true", help="larger configurations: minutes and gigabytes")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--traces", action="store_true", help="print the way to expected violations too")
    one = parser.add_argument_group("one configuration (without --suite and --deep)")
    one.add_argument("--off", action="append", default=[], choices=COUNTERMEASURES, help="leave a countermeasure out")
    one.add_argument("--expect-violation", action="store_true")
    one.add_argument("--check", nargs="+", default=["I1", "I2", "I3", "I7"], choices=["I1", "I2", "I3", "I7"])
    one.add_argument("--writers", type=parse_writers, default=A_TWICE, help='such as "A A | B" (default "A A")')
    for flag in ("dependents", "ordered", "slow-dispatch", "split-writes", "progress"):
        one.add_argument(f"--{flag}", action="store_true")
    limits = {"workers": 2, "lot": 2, "crashes": 1, "expiries": 1, "losses": 1, "sweeps": 0, "max-states": 5_000_000}
    for name, default in limits.items():
        one.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    return parser


def configuration(given: argparse.Namespace) -> Configuration:
    """Return the one configuration that the command line describes."""
    c = Configuration(
        "without " + ", ".join(given.off) if given.off else "all countermeasures",
        on=without_one(*given.off),
        checks=tuple(given.check),
        violation=given.expect_violation,
    )
    own = {"name", "on", "checks", "violation"}
    return replace(c, **{o.name: getattr(given, o.name) for o in fields(Configuration) if o.name not in own})


def main() -> int:
    """Run what the command line asks for; return 0 if all is as expected."""
    parser = arguments()
    given = parser.parse_args()
    if given.dependents and max(key for script in given.writers for t in script for key in t) != DEPENDENT:
        parser.error("--dependents needs --writers that change B, for example --writers 'A | B'")
    sets = (holding() + broken() if given.suite else []) + (deep() if given.deep else [])
    return 0 if run(sets or [configuration(given)], given.processes, traces=given.traces or not sets) else 1


if __name__ == "__main__":
    sys.exit(main())

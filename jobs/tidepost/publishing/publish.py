"""Publishing: finished files become a slice, by one compare-and-set and in an order that any crash survives.

1. The finished files are made durable, still out of sight (`prepare`).
2. One ledger transaction (`begin`) compares the stream's version with the one the index was looked up at, takes the
   next sequence number and records every file. From here on the slice's ids count, and it can only go forward:
   whoever finds it half-way finishes it.
3. `head.json` names the slice, the files become visible, the manifest is written last.
4. One ledger transaction (`finish`): published, deliveries created, range scanned.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from tidepost.definition.job import Job
from tidepost.errors import HeldElsewhere, LeaseLost, Misconfigured, Outdated, Vanished
from tidepost.labels.holding import write_held
from tidepost.labels.joining import NO_INFERENCE
from tidepost.labels.versions import days_joined, write_versions
from tidepost.leases import Keeper
from tidepost.model import Cut, Delivery, Lease, Slice, Stream, Tally
from tidepost.ports import Ledger, Records, Staging
from tidepost.publishing.stage import Stage, Staged
from tidepost.rows.rejects import write_rejects

WAIT_FOR_ANOTHER_PUBLISHER = 0.05
MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a cut: `slice` is None where nothing of it was new.

    deliveries: its own, and those of a slice that was finished on the way, as its publisher had died
    """

    tally: Tally
    slice: Slice | None = None
    deliveries: tuple[Delivery, ...] = ()


@dataclass(frozen=True, slots=True)
class Publisher:
    """What publishing needs, wired once a run."""

    job: Job
    staging: Staging
    records: Records
    ledger: Ledger
    keeper: Keeper
    destinations: Sequence[str]
    sleep: Callable[[float], None] = time.sleep

    def publish(self, stage: Stage, lease: Lease, stream: Stream, cut: Cut, staged: Staged) -> Done:
        """Publish what a cut staged. Raises LeaseLost, and what staging raises."""
        rescued: tuple[Delivery, ...] = ()
        while True:
            write_rejects(self.records, stream, cut.id, staged.rejects)
            if staged.versions is not None:
                write_held(self.records, self.ledger.id, stream, cut.id, staged.held)
            held = self._held(staged)
            news = staged.versions is not None and staged.versions.num_rows
            if not staged.drafts and held is None and not news:
                self.ledger.slices.empty(lease, stream, cut, staged.tally)
                self.staging.clear(stream, cut.id, lease.fence)
                return Done(staged.tally, deliveries=rescued)
            if staged.versions is not None:
                write_versions(self.records, stream, cut.id, staged.versions)
            parts = tuple(self.staging.prepare(stream, draft.part, draft.file) for draft in staged.drafts)
            draft = Slice(
                0, cut.id, cut.kind, cut.range, parts, staged.tally, cut.lane, held, days_joined(staged.versions)
            )
            self.keeper.guard(lease)
            try:
                begun = self.ledger.slices.begin(lease, stream, draft, staged.version, staged.columns)
            except Outdated:
                staged = stage.look_again(stream, staged)
            except LeaseLost:
                raise
            except HeldElsewhere:
                rescued += self._wait_for_another(stream)
            else:
                deliveries = self._complete(stream, begun)
                self.staging.clear(stream, cut.id, lease.fence)
                return Done(staged.tally, begun, (*rescued, *deliveries))

    def recover(self, stream: Stream) -> tuple[Delivery, ...]:
        """Finish a slice whose publisher died. Raises HeldElsewhere where it lives.

        Where its finished files are gone, what of it was visible is removed and its cut is staged again.
        """
        half = self.ledger.slices.publishing(stream)
        if half is None:
            return ()
        with self.keeper.holding("cut", half.cut) as lease:
            if self.ledger.slices.publishing(stream) != half:
                return ()  # its publisher finished it while the lease was taken
            try:
                deliveries = self._complete(stream, half)
            except Vanished:
                for part in half.parts:
                    self.staging.withdraw(stream, part)
                self.ledger.slices.withdraw(stream, half.sequence)
                return ()
            self.staging.clear(stream, half.cut, lease.fence)
            return deliveries

    def _wait_for_another(self, stream: Stream) -> tuple[Delivery, ...]:
        """Another slice of the stream is being published: a matter of moments, unless its publisher died. Then it
        is finished here; returns its deliveries."""
        try:
            return self.recover(stream)
        except HeldElsewhere:
            self.sleep(WAIT_FOR_ANOTHER_PUBLISHER)
            return ()

    def agree(self, stream: Stream) -> None:
        """Raises Misconfigured where the ledger is not the one that wrote the staging, or an older copy of it."""
        agree(self.ledger, self.records, stream)

    def _held(self, staged: Staged) -> str | None:
        tally, limit = staged.tally, self.job.limits.rejects
        # What a destination refused was counted there, and a limit decided on it.
        rejects = tally.rejects - tally.rejected.get(NO_INFERENCE, 0)
        if not limit.exceeded(rejects=rejects, candidates=tally.scanned):
            return None
        reasons = ", ".join(f"{count} {reason}" for reason, count in tally.rejected.items())
        return f"{tally.rejects} of {tally.scanned} rows rejected, over the limit of {limit}: {reasons}"

    def _complete(self, stream: Stream, begun: Slice) -> tuple[Delivery, ...]:
        move_head(self.ledger, self.records, stream, begun.sequence)
        for part in begun.parts:
            self.staging.reveal(stream, part)
        self.records.put(manifest_key(stream, begun.sequence), manifest(self.ledger.id, stream, begun))
        return self.ledger.slices.finish(stream, begun, self.destinations)


@dataclass(frozen=True, slots=True)
class Head:
    """What a stream's `head.json` says: the ledger that wrote it, and the newest slice that it gave a number to."""

    ledger: str
    newest: int


def agree(ledger: Ledger, records: Records, stream: Stream) -> None:
    """Raises Misconfigured where the staging's head names another ledger, or a slice that this one does not know."""
    head = read_head(records, stream)
    if head is None:
        # Without a head the manifests tell how far somebody came here.
        head = Head(ledger.id, max(map(sequence_of, records.list(manifests(stream))), default=0))
    # Asked after the head was read: another run may publish between the two.
    known = ledger.plans.find(stream.job, stream.name) or stream
    newest = known.allotted
    if head.ledger == ledger.id and head.newest <= newest:
        if head.newest < known.published:  # whoever wrote it was late, and died before it looked
            move_head(ledger, records, stream, known.published)
        return
    what = (
        "was written by another ledger"
        if head.ledger != ledger.id
        else f"holds slice {head.newest}, and the ledger knows none after {newest}"
    )
    away = "Move this ledger's files to another folder, then rebuild it" if newest else "Rebuild the ledger"
    raise Misconfigured(
        f"{stream.job}: the staging {what}",
        safe="Nothing was sent: a run on a new or older ledger would send rows again.",
        hint=f"{away} from what the staging holds:  tidepost ledger rebuild {stream.job}",
    )


def read_head(records: Records, stream: Stream) -> Head | None:
    """The stream's head; None before the first slice. Raises Misconfigured where it cannot be read."""
    data = records.get(head_key(stream))
    if data is None:
        return None
    try:
        content = json.loads(data)
        return Head(str(content["ledger"]), int(content["newest"]))
    except (ValueError, TypeError, KeyError):
        raise Misconfigured(
            f"the staging's {head_key(stream)} is damaged",
            safe="Nothing was sent.",
            hint=f"Remove it, then:  tidepost ledger rebuild {stream.job}",
        ) from None


def move_head(ledger: Ledger, records: Records, stream: Stream, sequence: int) -> None:
    """Let the head name a slice, or a newer one that the ledger has given a number to since.

    Whoever writes looks at the ledger afterwards: of a head that somebody who slept wrote over a newer one, that
    same process notices it and writes the newer one. If it dies between the two, the next run does (`agree`).
    """
    while True:
        write_head(records, stream, Head(ledger.id, sequence))
        newest = (ledger.plans.find(stream.job, stream.name) or stream).allotted
        if newest <= sequence:
            return
        sequence = newest


def write_head(records: Records, stream: Stream, head: Head) -> None:
    records.put(head_key(stream), json.dumps({"ledger": head.ledger, "newest": head.newest}).encode())


def head_key(stream: Stream) -> str:
    return f"{stream.prefix}/_tidepost/head.json"


def manifests(stream: Stream) -> str:
    """The prefix of a stream's manifests."""
    return f"{stream.prefix}/_tidepost/manifests"


def manifest_key(stream: Stream, sequence: int) -> str:
    return f"{manifests(stream)}/{sequence:08d}.json"


def sequence_of(key: str) -> int:
    """The slice whose manifest has this key."""
    return int(key.rpartition("/")[2].partition(".")[0])


def manifest(ledger: str, stream: Stream, done: Slice) -> bytes:
    """Everything about a slice that a lost ledger would need, the same bytes however often it is written."""
    content = {
        "version": MANIFEST_VERSION,
        "ledger": ledger,
        "job": stream.job,
        "stream": stream.name,
        **asdict(done),
        "parts": [
            {name: value for name, value in asdict(part).items() if name != "purged"} | {"token": ""}
            for part in done.parts
        ],
    }
    return json.dumps(content, sort_keys=True).encode()

"""Who works on what, and the fences that keep a process that slept from doing more."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from tidepost.cursor import SECOND, format_instant
from tidepost.errors import HeldElsewhere, LeaseLost
from tidepost.ledger.engine import Database
from tidepost.ledger.owner import describe, gone
from tidepost.ledger.schema import leases
from tidepost.model import Lease


class SqlLeases:
    """`ports.Leases` on the ledger's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, kind: str, ref: int, owner: str, seconds: float) -> Lease:
        with self._database.write() as connection:
            never_held = {"kind": kind, "ref": ref, "owner": None, "fence": 0, "until": 0.0}
            connection.execute(self._database.absent(leases).values(never_held))
            this = (leases.c.kind == kind, leases.c.ref == ref)
            row = connection.execute(select(leases).where(*this).with_for_update()).one()
            now = self._database.now(connection)
            if row.owner is not None and now < row.until and not gone(row.owner):
                raise HeldElsewhere(
                    f"{kind} {ref} is held by {describe(row.owner)} ({row.owner}) until {_time(row.until)}",
                    hint="It is free again then, or as soon as that process ends.",
                )
            lease = Lease(kind, ref, owner, row.fence + 1, now + seconds)
            connection.execute(update(leases).where(*this).values(owner=owner, fence=lease.fence, until=lease.until))
            return lease

    def renew(self, lease: Lease, seconds: float) -> Lease:
        with self._database.write() as connection:
            verify(connection, lease, lease.kind, lease.ref)
            until = self._database.now(connection) + seconds
            this = (leases.c.kind == lease.kind, leases.c.ref == lease.ref)
            connection.execute(update(leases).where(*this).values(until=until))
            return Lease(lease.kind, lease.ref, lease.owner, lease.fence, until)

    def release(self, lease: Lease) -> None:
        mine = (
            leases.c.kind == lease.kind,
            leases.c.ref == lease.ref,
            leases.c.fence == lease.fence,
            leases.c.owner == lease.owner,
        )
        with self._database.write() as connection:
            connection.execute(update(leases).where(*mine).values(owner=None, until=0.0))


def verify(connection: Connection, lease: Lease, kind: str, ref: int) -> None:
    """Keep the lease from being taken over until the transaction ends. Raises LeaseLost where it was taken over or
    released, and where it is a lease of something else.

    A lease that lapsed and that nobody took is still good: whoever takes it waits for this transaction.
    """
    if (lease.kind, lease.ref) != (kind, ref):
        raise LeaseLost(
            f"a lease of {lease.kind} {lease.ref} does not cover {kind} {ref}", safe="Nothing was written."
        )
    known = select(leases).where(leases.c.kind == kind, leases.c.ref == ref)
    row = connection.execute(known.with_for_update()).first()
    if row is None or (row.fence, row.owner) != (lease.fence, lease.owner):
        holder = "nobody now" if row is None or row.owner is None else describe(row.owner)
        raise LeaseLost(
            f"the lease of {kind} {ref} was lost; it is held by {holder}",
            safe="Nothing was written; whoever holds it finishes the work.",
        )


def _time(instant: float) -> str:
    return format_instant(int(instant) * SECOND)

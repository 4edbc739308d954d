"""What the engine needs of the outside, as small protocols named by role.

Every adapter, and every fake, passes the contract test of its port (`tests/contracts/`).
"""

from __future__ import annotations

from tidepost.ports.destination import Destination, Upload, unguarded
from tidepost.ports.ledger import Batch, Deliveries, Leases, Ledger, PartRef, Plans, Published, Reports, Slices
from tidepost.ports.source import (
    CURSOR,
    FAULT,
    FILE,
    WHERE,
    Drop,
    Drops,
    Extent,
    Layout,
    OfFiles,
    OfLanes,
    Relation,
    Source,
    Survey,
    lane_of,
)
from tidepost.ports.staging import Records, Staging, StagingArea

__all__ = [
    "CURSOR",
    "FAULT",
    "FILE",
    "WHERE",
    "Batch",
    "Deliveries",
    "Destination",
    "Drop",
    "Drops",
    "Extent",
    "Layout",
    "Leases",
    "Ledger",
    "OfFiles",
    "OfLanes",
    "PartRef",
    "Plans",
    "Published",
    "Records",
    "Relation",
    "Reports",
    "Slices",
    "Source",
    "Staging",
    "StagingArea",
    "Survey",
    "Upload",
    "lane_of",
    "unguarded",
]

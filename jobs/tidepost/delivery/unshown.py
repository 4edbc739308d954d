"""What is known of a delivery whose destination cannot show single rows, and of a send that nobody will ever answer.

Values only: `confirm.py` acts on them.
"""

from __future__ import annotations

import json

from tidepost.cursor import SECOND, format_instant
from tidepost.delivery.deliver import Parcel
from tidepost.model import Send, SendForm, SendState

_SILENT = (SendState.INTENT, SendState.UNKNOWN)


def silent(parcel: Parcel) -> list[Send]:
    """The sends without an answer."""
    return [send for send in parcel.sends if send.state is SendState.INTENT]


def repeats(parcel: Parcel) -> int:
    """How often a file of it was sent and not answered, of the file of which that is most often."""
    sends = [parcel.of(part, SendForm.FILE) for part in parcel.slice.parts]
    return max(sum(one.state in _SILENT for one in of_part) for of_part in sends)


def disbelieved(parcel: Parcel) -> str:
    """Why the newest answers do not prove that every file was taken, rows that were refused by number included;
    empty where they do."""
    for part in parcel.slice.parts:
        sends = parcel.of(part, SendForm.FILE)
        if not sends or sends[-1].state is not SendState.ACCEPTED:
            return f"{part.path} was not accepted"
        answer = json.loads(sends[-1].detail)
        accepted, failed = answer.get("accepted", 0), answer.get("failed", 0)
        if accepted + failed != part.rows:
            return f"{part.path} has {part.rows} rows, and {accepted} accepted and {failed} failed were answered"
    return ""


def let_go(parcel: Parcel) -> bool:
    """Whether a person let it go after the last answer, and so in the knowledge of it."""
    answered = [send.answered for send in parcel.sends if send.answered is not None]
    return parcel.delivery.released is not None and parcel.delivery.released >= max(answered, default=0.0)


def unheard(parcel: Parcel, job: str) -> str:
    """What is known of the sends without an answer, and what to type."""
    parts = {part.number: part for part in parcel.slice.parts}
    files = ", ".join(
        f"{parts[send.part].path} ({send.rows} rows) at {format_instant(int(send.at) * SECOND)}"
        for send in silent(parcel)
    )
    what, where = parcel.delivery.reason or "its sender ended", parcel.delivery.destination
    release = f"tidepost release {job} {parcel.slice.sequence}"
    return (
        f"sent without an answer: {files}; {what}. {where} cannot be asked, so look there. "
        f'If it arrived:  {release} --arrived --why "…"   To send it again:  {release} --why "…"'
    )

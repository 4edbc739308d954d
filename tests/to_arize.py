"""Jobs whose inferences go to Arize's side of the sandbox, and what of them is there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.world import KEY, World

from tidepost.model import Delivery, SendState
from tidepost.recovery import acts

SPACE = "a-space"


def arize(world: World, **changes: Any) -> dict[str, Any]:
    """The destination of a world's job at Arize, a classifier of the name of its model."""
    found = {
        "type": "arize",
        "url": "${SANDBOX_URL}/v1",
        "api_key": "${ARIZE_API_KEY}",
        "space_id": "${ARIZE_SPACE_ID}",
        "model": world.model,
        "version": "3",
        "model_type": "binary_classification",
        "prediction_score": "score",
        "connections": 1,
        "retries": 1,
    }
    return {**found, **changes}


def of_arize(world: World, **changes: Any) -> World:
    """The world, with a job that sends to Arize alone."""
    world.job = {key: value for key, value in world.job.items() if not key.startswith("destination")}
    knows_arize(world)
    world.define(destination=arize(world, **changes))
    return world


def of_both(world: World, **changes: Any) -> World:
    """The world, with a job that sends to Arthur as before, and to Arize."""
    arthur = world.job["destination"]
    knows_arize(world)
    world.define(destination=None, destinations=[arthur, arize(world, **changes)])
    return world


def knows_arize(world: World) -> None:
    """Let a world have the variables of `arize`, and the sandbox its time."""
    world.variables = {**world.variables, "ARIZE_API_KEY": KEY, "ARIZE_SPACE_ID": SPACE}
    world.platform.process.configure(now=world.now.timestamp())


def there(world: World) -> dict[str, int]:
    """Id → how many rows of it came to Arize."""
    found = world.platform.process.arize_records(SPACE, world.model)
    return {id_: int(one["received"]) for id_, one in found.items()}


def arrived(world: World) -> tuple[int, int]:
    """Records there, and rows that came."""
    found = world.platform.process.arize(SPACE, world.model) or {"rows": 0, "received": 0}
    return found["rows"], found["received"]


def held(world: World) -> Sequence[Delivery]:
    """The deliveries to Arize that wait for a person."""
    with world.ledger() as ledger:
        return ledger.deliveries.held(world.stream(), "arize")


def release(world: World, sequence: int = 1, *, gone: bool = True) -> None:
    """What a person says who looked at Arize: that a slice is not there, or that it is."""
    word = acts.Word("a test", 0.0, "it looked")
    with world.ledger() as ledger:
        acts.release(ledger, world.staging, world.stream(), sequence, word, arrived=not gone)


def states(world: World, name: str = "arize") -> dict[str, int]:
    """Deliveries to one destination by their state."""
    (found,) = (one for one in world.summary().destinations if one.destination == name)
    return {state.value: number for state, number in found.deliveries.items()}


def decided(world: World) -> Counter[str]:
    """The receipts of files that were sent and never answered, by what was decided about them."""
    folder = world.staging.root / "flights" / "inferences" / "_tidepost" / "receipts"
    texts = [json.loads(path.read_text()) for path in folder.glob("*.arize.*.json")]
    unknown = [one for one in texts if one["state"] == SendState.UNKNOWN]
    return Counter("sent again" if "then" in one else "held" for one in unknown)

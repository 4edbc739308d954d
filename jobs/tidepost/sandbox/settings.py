"""What a sandbox is started with, and what may be changed while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from tidepost.errors import Misconfigured

OnRepeat = Literal["refuse", "merge", "keep"]
Kind = Literal["any", "file", "rows", "query", "other"]
FaultName = Literal["fail", "throttle", "fail_after", "lose_reply", "reset", "delay", "drop"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to misbehave, and for which requests.

    fault:       fail        answers `status`; nothing is accepted
                 throttle    answers 429 with `Retry-After: retry_after`; nothing is accepted
                 fail_after  accepts, then answers `status`
                 lose_reply  accepts, then closes the connection without a byte of answer
                 reset       reads `after_bytes` of the body (or all, if it is shorter) and resets the connection;
                             nothing is accepted
                 delay       waits `seconds` before anything else; goes together with any other fault
                 drop        says yes to every row and silently leaves out the share `rows` of them
    kind:        file (inferences/file, Arize's batches), rows (JSON rows and labels, Arize's records), query, other
                 (any other API call), any
    share:       of the matching requests, 0 to 1, drawn from the seeded generator
    count:       how many requests it hits before it is spent; None is for ever
    skip:        matching requests that go unharmed first
    """

    fault: FaultName
    kind: Kind = "any"
    share: float = 1.0
    count: int | None = None
    skip: int = 0
    status: int = 503
    retry_after: float = 1.0
    seconds: float = 0.0
    after_bytes: int = 65536
    rows: float = 0.1

    def __post_init__(self) -> None:
        if self.fault not in get_args(FaultName):
            raise Misconfigured(f"fault {self.fault!r} is none of {', '.join(get_args(FaultName))}")
        if self.kind not in get_args(Kind):
            raise Misconfigured(f"kind {self.kind!r} is none of {', '.join(get_args(Kind))}")
        for name in ("share", "rows"):
            if not 0 <= getattr(self, name) <= 1:
                raise Misconfigured(f"{name} of the fault {self.fault} must be between 0 and 1")
        if not 400 <= self.status <= 599:
            raise Misconfigured(f"status {self.status} of the fault {self.fault} is no error")
        if self.count is not None and self.count < 1:
            raise Misconfigured(f"count of the fault {self.fault} must be at least 1")
        if min(self.skip, self.retry_after, self.seconds, self.after_bytes) < 0:
            raise Misconfigured(f"the fault {self.fault} holds a negative number")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Fault:
        """A fault from JSON; an unknown key or a wrong type is Misconfigured and named."""
        if not isinstance(values, Mapping) or "fault" not in values:
            raise Misconfigured('a fault is an object such as {"fault": "fail", "kind": "file", "count": 1}')
        return cls(**_typed(values, _FAULT_TYPES, "a fault"))

    @classmethod
    def from_text(cls, text: str) -> Fault:
        """A fault from a command line: `lose_reply,kind=file,count=1`."""
        name, *pairs = text.split(",")
        values: dict[str, Any] = {"fault": name}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals or key not in _FAULT_TYPES:
                raise Misconfigured(f"--fault {text}: {pair!r} is not one of {', '.join(_FAULT_TYPES)}=…")
            try:
                values[key] = _FAULT_TYPES[key](value)
            except ValueError:
                raise Misconfigured(f"--fault {text}: {value!r} is no number") from None
        return cls.from_mapping(values)

    def to_text(self) -> str:
        """The fault as `from_text` reads it."""
        return ",".join(
            [
                self.fault,
                *(f"{key}={value}" for key, value in asdict(self).items() if key != "fault" and value is not None),
            ]
        )


_FAULT_TYPES: Final[dict[str, type[Any]]] = {
    "fault": str,
    "kind": str,
    "share": float,
    "count": int,
    "skip": int,
    "status": int,
    "retry_after": float,
    "seconds": float,
    "after_bytes": int,
    "rows": float,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """A sandbox's start options. The fields named in `CHANGEABLE` may be changed while it runs.

    data:                directory that holds everything; made when it is missing, one sandbox at a time
    port:                0 is any free port
    api_key:             None accepts any key that is not empty; else exactly this one
    on_repeat:           what an inference whose partner_inference_id is already there comes to:
                         refuse  that row fails
                         merge   it counts as success; the row that came first stays
                         keep    both are kept
    loading_delay:       seconds between accepting a file and beginning to load it
    loading_rate:        rows a second that loading is slowed down to; None is as fast as it goes
    provisioning_delay:  seconds until a registered model is Ready
    memory_limit:        of the database, as DuckDB writes it
    seed:                of every draw that a fault makes
    now:                 seconds since 1970 that Arize's side takes for the time; None is the clock's
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 8765
    api_key: str | None = None
    on_repeat: OnRepeat = "refuse"
    loading_delay: float = 0.0
    loading_rate: float | None = None
    provisioning_delay: float = 0.0
    memory_limit: str = "1GB"
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    now: float | None = None

    def __post_init__(self) -> None:
        if self.on_repeat not in get_args(OnRepeat):
            raise Misconfigured(f"on_repeat {self.on_repeat!r} is none of {', '.join(get_args(OnRepeat))}")
        if min(self.loading_delay, self.provisioning_delay) < 0:
            raise Misconfigured("a delay cannot be negative")
        if self.loading_rate is not None and self.loading_rate <= 0:
            raise Misconfigured("loading_rate must be above 0 rows a second, or null")
        if self.api_key == "":
            raise Misconfigured("the API key is empty")

    def changed(self, values: Mapping[str, Any]) -> Settings:
        """These settings with `values` (as PATCH /sandbox/settings takes them); Misconfigured names a bad key."""
        faults = values.get("faults", None)
        rest = {key: value for key, value in values.items() if key != "faults"}
        typed = _typed(rest, _CHANGEABLE_TYPES, "the settings that can be changed")
        if "faults" in values:
            if not isinstance(faults, list):
                raise Misconfigured("faults must be a list")
            typed["faults"] = tuple(Fault.from_mapping(fault) for fault in faults)
        return replace(self, **typed)

    def shown(self) -> dict[str, Any]:
        """The settings that can be changed, as JSON values; the key is never among them."""
        values = asdict(self)
        return {name: values[name] for name in CHANGEABLE}


_CHANGEABLE_TYPES: Final[dict[str, type[Any]]] = {
    "on_repeat": str,
    "loading_delay": float,
    "loading_rate": float,
    "provisioning_delay": float,
    "seed": int,
    "now": float,
}
CHANGEABLE: Final = (*_CHANGEABLE_TYPES, "faults")
_OPTIONAL: Final = frozenset(
    field.name for cls in (Fault, Settings) for field in fields(cls) if str(field.type).endswith("| None")
)


def _typed(values: Mapping[str, Any], types: Mapping[str, type[Any]], what: str) -> dict[str, Any]:
    typed: dict[str, Any] = {}
    for key, value in values.items():
        if key not in types:
            raise Misconfigured(f"{key!r} is none of {what}: {', '.join(types)}")
        if value is None and key in _OPTIONAL:
            typed[key] = None
        elif types[key] is float and isinstance(value, int | float) and not isinstance(value, bool):
            typed[key] = float(value)
        elif isinstance(value, types[key]) and not isinstance(value, bool):
            typed[key] = value
        else:
            raise Misconfigured(f"{key} must be of type {types[key].__name__}, not {type(value).__name__}")
    return typed

"""What came of an attack: as values, as JSON and as a table; and which of it is a fault of the gateway."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """Milliseconds, MiB and counts. `attacks`: how each ended, and how often. `unexpected`: the ends that the table
    does not allow."""

    seconds: float
    health: dict[str, float]
    memory: dict[str, float]
    descriptors: dict[str, int]
    pictures: dict[str, int]
    lost: dict[str, str]
    drawn_twice: dict[str, int]
    answers: dict[str, int]
    attacks: dict[str, dict[str, int]]
    unexpected: list[str]
    server_errors: dict[str, int]
    log_errors: list[str]
    exit_code: int | None

    def faults(self) -> dict[str, Any]:
        """Facts alone; nothing that depends on the speed of the machine."""
        found = {
            "lost": self.lost,
            "drawn twice": self.drawn_twice,
            "unexpected": self.unexpected,
            "log errors": self.log_errors,
            "exit code": self.exit_code,
            "questions to /healthz without an answer": self.health["unanswered"],
        }
        return {name: fault for name, fault in found.items() if fault}

    def table(self) -> str:
        rows: list[tuple[str, object]] = [
            ("seconds", f"{self.seconds:.0f}"),
            *(
                (name, spelt(getattr(self, name)))
                for name in ("health", "memory", "descriptors", "pictures", "answers")
            ),
            ("5xx", spelt(self.server_errors)),
            *((name, spelt(ends)) for name, ends in self.attacks.items()),
            *((name.upper(), fault) for name, fault in self.faults().items()),
        ]
        return "\n".join(f"{name:32} {value}" for name, value in rows)

    def json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def spelt(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {count:g}" for name, count in counts.items())


def latency(seconds: list[float]) -> dict[str, float]:
    """Milliseconds, of sorted seconds."""
    answered = [round(each * 1000, 1) for each in seconds if each != float("inf")]
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    found = {name: answered[min(int(len(answered) * share), len(answered) - 1)] for name, share in shares.items()}
    return {**found, "asked": len(seconds), "unanswered": len(seconds) - len(answered)}


def server_errors(lines: list[dict[str, Any]]) -> dict[str, int]:
    """By status and code, from the gateway's own log."""
    found = Counter(f"{line['status']} {line.get('error')}" for line in lines if line.get("status", 0) >= 500)
    return dict(found.most_common())

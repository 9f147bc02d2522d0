"""What is counted at the door (Prometheus). No device id and no address is ever a label.

Responsible for the names of the metrics and for keeping the set of label values small.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)


class WebhookOutcome(StrEnum):
    """What became of an event."""

    ACCEPTED = "accepted"
    IGNORED = "ignored"
    """It names no device that could be ours, or it is not an event that concerns us."""
    DROPPED = "dropped"
    """There was no room for the hint; the reconciler finds out by itself."""
    UNREADABLE = "unreadable"
    """Reading it failed in a way that is our fault; see the log."""
    UNAUTHORIZED = "unauthorized"
    TOO_LARGE = "too_large"


class Meters:
    """The door's counters, on a Prometheus registry of their own unless one is given."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or CollectorRegistry()
        self._enrollments = Counter(
            "iot_bridge_enrollments",
            "Enrollment requests by outcome: created, stored, or the code of the problem.",
            ("outcome",),
            registry=registry,
        )
        self._seconds = Histogram(
            "iot_bridge_enrollment_seconds",
            "Time from the request's first byte at the application to its answer.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._activations = Counter(
            "iot_bridge_activations",
            "Activations of renewed certificates by outcome: activated, current (already), or the code of the problem.",
            ("outcome",),
            registry=registry,
        )
        self._refused_proofs = Counter(
            "iot_bridge_refused_proofs",
            "Proofs in enrollment requests that did not hold; the request was decided as if it had none.",
            registry=registry,
        )
        self._webhooks = Counter("iot_bridge_webhooks", "Webhook requests by outcome.", ("outcome",), registry=registry)
        self._unknown = Counter(
            "iot_bridge_webhook_unknown_devices",
            "Devices named in webhooks that the registry does not know, or that break the naming rule.",
            registry=registry,
        )
        for outcome in WebhookOutcome:
            self._webhooks.labels(outcome.value)

    def enrollment(self, outcome: str, seconds: float) -> None:
        """Count one enrollment request."""
        self._enrollments.labels(outcome).inc()
        self._seconds.observe(seconds)

    def activation(self, outcome: str) -> None:
        """Count one activation request."""
        self._activations.labels(outcome).inc()

    def refused_proof(self) -> None:
        """Count a proof that did not hold."""
        self._refused_proofs.inc()

    def webhook(self, outcome: WebhookOutcome) -> None:
        """Count one webhook request."""
        self._webhooks.labels(outcome.value).inc()

    def unknown_devices(self, count: int) -> None:
        """Count names that the registry does not know. For the door, and for whoever takes its hints."""
        self._unknown.inc(count)

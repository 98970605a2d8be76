"""Quality of service of every topic, and incompatible offers told in words."""

from __future__ import annotations

from rclpy.qos import (
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

__all__ = ["OUTPUT", "SubscriptionEventCallbacks", "image_input", "incompatible_in_words"]

# Reliable, volatile: a slow reader gets the last ten.
OUTPUT = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, history=HistoryPolicy.KEEP_LAST)


def image_input(kind: str, depth: int) -> QoSProfile:
    """Profile of the camera subscriptions.

    Args:
        kind: "sensor_data" (best effort, matches every publisher) or "reliable" (loses nothing,
            does not match best-effort publishers).
        depth: messages kept while the node is busy.
    """
    reliable = kind == "reliable"
    return QoSProfile(
        depth=depth,
        history=HistoryPolicy.KEEP_LAST,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
    )


def incompatible_in_words(topic: str, policy_kind: int) -> str:
    """One sentence about a publisher whose offer does not fit our request."""
    try:
        policy = qos_policy_name_from_kind(policy_kind).lower()
    except ValueError:
        policy = str(policy_kind)
    advice = " (set image_qos to sensor_data)" if policy == "reliability" else ""
    return f"a publisher of {topic} offers another {policy} than is asked for, nothing of it arrives{advice}"

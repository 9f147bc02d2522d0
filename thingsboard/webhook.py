"""The connect event as it reaches the bridge's webhook, in all the forms that rule chains send it.

Pure: bytes and headers in, a value out. Does not check the secret, and believes nothing but a name.
"""

from collections.abc import Mapping

from thingsboard.models import ConnectEvent, OtherEvent


def parse_event(body: bytes, headers: Mapping[str, str]) -> ConnectEvent | OtherEvent:
    """Read an event. Never raises: what cannot be read is an `OtherEvent` without kind."""
    del body, headers
    return OtherEvent()

"""Connect events from a Mosquitto's log: what ThingsBoard's rule chain would post, where there is no ThingsBoard."""

import contextlib
import json
import re
import ssl
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass

from compose.real.mosquitto import RealMosquitto

_CONNECTED = re.compile(r"New client connected from \S+ as (?P<client>\S+) \(.*u'(?P<cn>[^']+)'")
_EVERY = 0.3
_TIMEOUT = 5.0


@dataclass
class ConnectEvents:
    """Posts an event to ``url`` for every device that connects to ``broker``."""

    broker: RealMosquitto
    url: str
    secret: str
    root_pem: str

    def watch(self, stop: threading.Event) -> None:
        """Follow the log until ``stop``. An event that cannot be delivered is lost, as ThingsBoard's are."""
        told = 0
        while not stop.wait(_EVERY):
            seen = [match["cn"] for match in _CONNECTED.finditer(self.broker.log)]
            for device in seen[told:]:
                with contextlib.suppress(urllib.error.URLError, OSError):
                    self.post(device)
            told = len(seen)

    def post(self, device: str) -> None:
        """Post one connect event.

        :raises OSError: the bridge did not take it.
        """
        body = {"event": "CONNECT_EVENT", "deviceName": device, "deviceType": "default", "state": {}}
        headers = {"Content-Type": "application/json", "X-Bridge-Webhook-Secret": self.secret}
        # The address is our own bridge's, on loopback.
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)  # noqa: S310
        context = ssl.create_default_context(cadata=self.root_pem)
        with urllib.request.urlopen(request, timeout=_TIMEOUT, context=context):  # noqa: S310
            pass

"""Notifies listeners of a job's end, whichever server drew it and whichever was asked."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated, ServerEvent

from castmate.jobs.notify import DONE, Hub
from castmate_mcp.http.ids import job_id_of

_REMEMBERED: Final = 1000


class Subscriptions(InMemorySubscriptionBus):
    """The SDK's bus, which also receives the ends of jobs through the ledger's database."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._told: OrderedDict[str, None] = OrderedDict()
        hub.overhear(self._hear)

    async def publish(self, event: ServerEvent) -> None:
        """Notify this server's listeners, once for each job."""
        if isinstance(event, ResourceUpdated) and not self._is_new(event.uri):
            return
        await super().publish(event)

    def _hear(self, topic: str) -> None:
        if topic.startswith(DONE):
            uri = f"job://{job_id_of(topic.removeprefix(DONE))}"
            if self._is_new(uri):
                for listener in list(self._listeners.values()):
                    listener(ResourceUpdated(uri=uri))

    def _is_new(self, uri: str) -> bool:
        if uri in self._told:
            return False
        self._told[uri] = None
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        return True

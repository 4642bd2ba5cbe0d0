"""A bounded queue between two stages, and a junction that reads several of them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """This channel is not read any more."""


class Channel(Generic[T]):
    """put() to send, close() to end the stream. One writer; one reader, through a `Junction`.

    A file must not lose frames, so a full channel blocks the sender. A camera must not wait for the network, so a full
    lossy channel drops its oldest item and counts it.
    """

    def __init__(self, capacity: int, *, lossy: bool = False) -> None:
        self.capacity, self.lossy = capacity, lossy
        self.dropped = 0
        self.changed = threading.Condition()  # a junction replaces it with one that all its channels share
        self._items: deque[T] = deque()
        self._open = True

    def put(self, item: T) -> None:
        with self.changed:
            if self.lossy and self._open and len(self._items) >= self.capacity:
                self._items.popleft()
                self.dropped += 1
            while self._open and len(self._items) >= self.capacity:
                self.changed.wait()
            if not self._open:
                raise Closed
            self._items.append(item)
            self.changed.notify_all()

    def close(self, *, discard: bool = False) -> None:
        """End the stream. Readers still drain what was sent, unless it is discarded."""
        with self.changed:
            self._open = False
            if discard:
                self._items.clear()
            self.changed.notify_all()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(Junction([self]))


class Junction(Generic[T]):
    """Reads several channels in turn: each take() starts one channel further on, so that a fast one starves none."""

    def __init__(self, channels: Sequence[Channel[T]]) -> None:
        """Create it before any of the channels is used: from here on they share one condition."""
        self._channels = list(channels)
        self._changed = threading.Condition() if len(channels) != 1 else channels[0].changed
        self._first = 0
        for channel in channels:
            channel.changed = self._changed

    def take(self, limit: int) -> list[T]:
        """Wait for one item, then take up to `limit` of those already queued; [] when all channels have ended."""
        with self._changed:
            while True:
                waiting = [channel._items for channel in self._channels if channel._items]
                if waiting or not any(channel._open for channel in self._channels):
                    break
                self._changed.wait()
            taken: list[T] = []
            self._first += 1
            turn = self._first
            while waiting and len(taken) < limit:
                items = waiting[turn % len(waiting)]
                taken.append(items.popleft())
                if items:
                    turn += 1
                else:
                    waiting.remove(items)
            self._changed.notify_all()
            return taken

    def __iter__(self) -> Iterator[T]:
        while items := self.take(1):
            yield items[0]

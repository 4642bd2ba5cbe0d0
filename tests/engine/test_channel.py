"""Channels: what waits, what is dropped and counted, and how a junction takes turns."""

from __future__ import annotations

import threading
import time

import pytest

from vlfau.engine.channel import Channel, Closed, Junction


def test_a_lossy_channel_keeps_the_newest_and_counts_the_rest() -> None:
    channel: Channel[int] = Channel(2, lossy=True)
    for i in range(10):
        channel.put(i)
    channel.close()
    assert list(channel) == [8, 9]
    assert channel.dropped == 8


def test_a_full_channel_makes_its_sender_wait() -> None:
    channel: Channel[int] = Channel(1)
    reader = Junction([channel])
    channel.put(0)
    sender = threading.Thread(target=channel.put, args=(1,))
    sender.start()
    time.sleep(0.02)
    assert sender.is_alive()
    assert reader.take(5) == [0]
    sender.join(1)
    assert not sender.is_alive()
    assert reader.take(5) == [1]
    assert channel.dropped == 0


def test_take_returns_what_is_queued_and_nothing_at_the_end() -> None:
    channel: Channel[int] = Channel(8)
    reader = Junction([channel])
    for i in range(5):
        channel.put(i)
    assert reader.take(3) == [0, 1, 2]
    assert reader.take(8) == [3, 4]
    channel.close()
    assert reader.take(8) == []


def test_put_after_close_raises() -> None:
    channel: Channel[int] = Channel(1, lossy=True)
    channel.close()
    with pytest.raises(Closed):
        channel.put(1)


def test_closing_wakes_a_sender_that_waits() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(0)
    outcomes: list[str] = []

    def send() -> None:
        try:
            channel.put(1)
        except Closed:
            outcomes.append("closed")

    sender = threading.Thread(target=send)
    sender.start()
    time.sleep(0.02)
    channel.close(discard=True)
    sender.join(1)
    assert outcomes == ["closed"]
    assert len(channel) == 0


def test_a_fast_channel_starves_no_other() -> None:
    fast: Channel[str] = Channel(100)
    slow: Channel[str] = Channel(100)
    reader = Junction([fast, slow])
    for _ in range(90):
        fast.put("fast")
    for _ in range(3):
        slow.put("slow")
    first = [reader.take(1)[0] for _ in range(6)]
    assert first.count("slow") == 3
    assert sorted(reader.take(200)) == ["fast"] * 87


def test_a_junction_ends_when_all_its_channels_have() -> None:
    one: Channel[int] = Channel(4)
    two: Channel[int] = Channel(4)
    reader = Junction([one, two])
    one.put(1)
    one.close()
    assert reader.take(4) == [1]
    later = threading.Timer(0.02, lambda: (two.put(2), two.close()))  # type: ignore[func-returns-value]
    later.start()
    assert reader.take(4) == [2]
    assert reader.take(4) == []
    later.join()


def test_order_within_a_channel_is_kept_through_a_junction() -> None:
    channels: list[Channel[tuple[int, int]]] = [Channel(3) for _ in range(4)]
    reader = Junction(channels)

    def send(k: int) -> None:
        for i in range(200):
            channels[k].put((k, i))
        channels[k].close()

    senders = [threading.Thread(target=send, args=(k,)) for k in range(4)]
    for sender in senders:
        sender.start()
    received: list[tuple[int, int]] = []
    while items := reader.take(5):
        received += items
    for k in range(4):
        assert [i for sender, i in received if sender == k] == list(range(200))
    for sender in senders:
        sender.join()

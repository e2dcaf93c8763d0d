"""What a worker has to tell while control ends and the next one comes."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

from blockyard.worker.executor import ThreadExecutor
from blockyard.worker.handoff import pair, receive_message, send_message
from blockyard.worker.loop import Loop
from blockyard.worker.tether import Tether
from tests.waiting import LIMIT, eventually


def test_an_event_that_is_kept_just_when_the_next_control_comes_is_told(tmp_path: Path) -> None:
    path = f"{tmp_path}/door"
    control, to_control = pair()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as following,
    ):
        door.bind(path)
        following.settimeout(LIMIT)
        tether = Tether(to_control, door)
        tether.linger = LIMIT
        tether.greeting = lambda: {"type": "adopted"}
        send_message(control, {"type": "configure"})
        assert tether.first_message() == {"type": "configure"}
        executor = ThreadExecutor()
        loop = Loop(executor)
        loop.on_tick = tether.tick
        tether.begin(loop)
        thread = threading.Thread(target=loop.run)
        thread.start()
        try:
            control.close()
            eventually(lambda: tether.link is None, "its end is noticed")

            class Late(dict[str, Any]):
                def __getitem__(self, key: str) -> Any:
                    """It has found no control: now there is one, which is greeted and told all."""
                    following.connect(path)
                    assert [_told(following) for _ in range(2)] == ["adopted", "listening"]
                    return super().__getitem__(key)

            tether.tell(Late(type="event", what="test"))
            assert _told(following) == "event"
        finally:
            loop.running = False
            thread.join()
            loop.close()
            executor.close()


def _told(control: socket.socket) -> str:
    received = receive_message(control)
    assert received is not None
    return str(received[0]["type"])

"""A connection that is closed while its peer takes nothing is cut; one that is only slow is not."""

import asyncio

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from hsoftmax.service.http import protocol
from hsoftmax.service.http.protocol import Protocol


class Transport(asyncio.Transport):
    """Holds bytes for a peer that takes `pace` of them at each look."""

    def __init__(self, held, pace, closing=True):
        super().__init__()
        self.held, self.pace, self.closing, self.cut = held, pace, closing, False

    def get_write_buffer_size(self):
        self.held = max(0, self.held - self.pace)
        return self.held

    def is_closing(self):
        return self.closing

    def abort(self):
        self.cut = True

    def pause_reading(self):
        pass


def left_to(transport, monkeypatch, looks=6):
    """What became of the connection after so many looks."""
    monkeypatch.setattr(protocol, "_PATIENCE", 0.005)

    async def run():
        connection = Protocol.__new__(Protocol)
        connection.transport, connection.loop = transport, asyncio.get_running_loop()
        connection.flow = FlowControl(transport)
        connection.pause_writing()
        await asyncio.sleep(0.005 * (looks + 1))
        transport.held = 0
        await asyncio.sleep(0.02)

    asyncio.run(run())
    return transport.cut


@pytest.mark.parametrize(
    ("pace", "closing", "cut"), [(0, True, True), (1, True, False), (0, False, False)]
)
def test_what_nobody_takes_is_cut_once_it_is_closed(pace, closing, cut, monkeypatch):
    assert left_to(Transport(1000, pace, closing), monkeypatch) == cut

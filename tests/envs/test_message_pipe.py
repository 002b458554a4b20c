"""Messages between processes: whole, in order, and never waited for if the writer died."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from dqn_runner.envs.message_pipe import MessageReader, write_message


def test_messages_arrive_whole_and_in_order() -> None:
    read, write = os.pipe()
    messages = [1, np.arange(300_000), "two", np.zeros(0)]
    thread = threading.Thread(target=lambda: [write_message(write, each) for each in messages])
    thread.start()
    reader = MessageReader(read, lambda: True)
    assert [str(reader.read()) for _ in messages] == [str(each) for each in messages]
    thread.join()


@pytest.mark.parametrize("part", [0, 3, 8, 50])
def test_message_of_a_writer_that_died_in_it_is_not_waited_for(part: int) -> None:
    """Its end of the pipe stays open here, as in a child of the writer."""
    read, write = os.pipe()
    whole_read, whole_write = os.pipe()
    write_message(whole_write, np.arange(100))
    os.write(write, os.read(whole_read, 10_000)[:part])
    with pytest.raises(EOFError):
        MessageReader(read, lambda: False).read()
    os.close(write)
    with pytest.raises(EOFError):
        MessageReader(read, lambda: True).read()


def test_reader_stops_waiting_after_its_timeout() -> None:
    read, _ = os.pipe()
    with pytest.raises(TimeoutError):
        MessageReader(read, lambda: True).read(timeout=0.01)

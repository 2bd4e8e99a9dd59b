import threading

import pytest

from recyclelora.evaluation.background import Background


def test_background_runs_calls_in_order_beside_the_caller():
    done, release = [], threading.Event()

    def call(number):
        assert release.wait(20)
        done.append((number, threading.current_thread()))

    with Background() as background:
        background.submit(call, 0)
        assert done == []  # the caller did not wait for it
        release.set()
        for number in range(1, 5):
            background.submit(call, number)
            assert len(done) >= number  # the caller is one call ahead
    assert [number for number, _ in done] == [0, 1, 2, 3, 4]
    assert {thread for _, thread in done}.isdisjoint({threading.main_thread()})


def fail(number):
    raise ValueError(f"call {number}")


def test_background_error_is_raised_by_the_next_call():
    later = []
    with pytest.raises(ValueError, match="call 7"), Background() as background:
        background.submit(fail, 7)
        background.submit(later.append, 8)
    assert later == []


def test_background_error_of_the_last_call_is_raised_at_the_end():
    with pytest.raises(ValueError, match="call 9"), Background() as background:
        background.submit(fail, 9)


def test_background_error_of_the_block_is_kept_and_the_call_ends():
    done = []
    with pytest.raises(KeyboardInterrupt), Background() as background:
        background.submit(done.append, 1)
        raise KeyboardInterrupt
    assert done == [1]

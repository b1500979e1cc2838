"""Settings of the process: changed by the first that needs them so, put back by the last."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from camcli.utils.shared_setting import SharedSetting

now: list[str] = ["before"]


@contextmanager
def _change(value: str) -> Iterator[None]:
    previous, now[0] = now[0], value
    try:
        yield
    finally:
        now[0] = previous


def test_the_last_one_puts_back_in_whatever_order_they_end() -> None:
    setting, first, second = SharedSetting(_change), ExitStack(), ExitStack()
    first.enter_context(setting.hold_at("a"))
    second.enter_context(setting.hold_at("a"))
    first.close()
    assert now == ["a"]
    second.close()
    assert now == ["before"]


def test_inside_its_own_block_a_thread_may_have_another_value() -> None:
    setting = SharedSetting(_change)
    with setting.hold_at("a"):
        with setting.hold_at("b"):
            assert now == ["b"]
        assert now == ["a"]
    assert now == ["before"]


def test_another_thread_with_another_value_waits() -> None:
    setting, seen = SharedSetting(_change), []

    def want_b() -> None:
        with setting.hold_at("b"):
            seen.append(now[0])

    with setting.hold_at("a"):
        thread = threading.Thread(target=want_b, daemon=True)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and now == ["a"]
    thread.join(60)
    assert seen == ["b"] and now == ["before"]


def test_an_error_puts_back() -> None:
    with pytest.raises(ZeroDivisionError), SharedSetting(_change).hold_at("a"):
        raise ZeroDivisionError
    assert now == ["before"]

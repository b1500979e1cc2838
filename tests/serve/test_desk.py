"""Work in its order, one piece at a time, for visitors who may leave."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from camcli.serve.desk import Desk
from camcli.serve.refusals import TooSlow, VisitorLeft


def stays() -> bool:
    return False


def leaves() -> bool:
    return True


def test_each_piece_has_its_own_answer_and_only_one_is_at_work() -> None:
    desk, at_work, most = Desk(60), [0], [0]
    answers: dict[int, int] = {}

    def work(number: int) -> int:
        at_work[0] += 1
        most[0] = max(most[0], at_work[0])
        at_work[0] -= 1
        return number**2

    def visit(number: int) -> None:
        answers[number] = desk.ask(lambda _: work(number), stays)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    desk.close()
    assert answers == {number: number**2 for number in range(20)} and most == [1]


def test_an_error_is_the_visitors_whose_work_it_was() -> None:
    desk = Desk(60)

    def fail(_: Any) -> int:
        raise TimeoutError("of the work itself")

    with pytest.raises(TimeoutError, match="of the work itself"):
        desk.ask(fail, leaves)
    assert desk.ask(lambda _: 3, stays) == 3
    desk.close()


def test_work_for_a_visitor_who_left_ends_or_never_begins() -> None:
    desk, begun, ended = Desk(60), threading.Event(), threading.Event()
    never: list[int] = []

    def run(check: Any) -> None:
        begun.set()
        try:
            while True:
                check()
        finally:
            ended.set()

    def visit() -> None:
        with pytest.raises(VisitorLeft):
            desk.ask(run, ended_soon)

    first = threading.Thread(target=visit)
    gone = threading.Event()

    def ended_soon() -> bool:
        return gone.is_set()

    first.start()
    assert begun.wait(5)
    # waits behind the first one, and leaves
    with pytest.raises(VisitorLeft):
        desk.ask(lambda _: never.append(1), leaves)
    gone.set()
    assert ended.wait(5)
    first.join()
    assert desk.ask(lambda _: 1, stays) == 1 and never == []
    desk.close()


def test_work_has_its_time_from_when_it_begins() -> None:
    desk = Desk(0.05)

    def run(check: Any) -> None:
        while True:
            check()

    with pytest.raises(TooSlow):
        desk.ask(run, stays)
    assert desk.ask(lambda check: check(), stays) is None
    desk.close()


def test_a_desk_that_closes_ends_what_is_at_work_and_takes_no_more() -> None:
    desk, begun = Desk(60), threading.Event()

    def run(check: Any) -> None:
        begun.set()
        while True:
            check()

    def ask() -> None:
        with pytest.raises(VisitorLeft):
            desk.ask(run, stays)

    visit = threading.Thread(target=ask)
    visit.start()
    assert begun.wait(5)
    desk.close()
    visit.join(5)
    assert not visit.is_alive()
    with pytest.raises(VisitorLeft):
        desk.ask(lambda _: 1, stays)

import pytest

from celeriac.rules import claim as table


class Claim:
    def __init__(self, state: int = table.HELD) -> None:
        self.state = state


def test_the_usual_life() -> None:
    claim = Claim()
    for state in (table.READY, table.RUNNING, table.FINISHED, table.SETTLED):
        table.advance(claim, state)
    assert claim.state == table.SETTLED


def test_an_illegal_step_is_refused_and_leaves_the_claim_as_it_was() -> None:
    claim = Claim(table.SETTLED)
    with pytest.raises(table.IllegalTransition, match="SETTLED cannot become RUNNING"):
        table.advance(claim, table.RUNNING)
    assert claim.state == table.SETTLED


def test_a_batch_stops_at_the_first_that_cannot_move() -> None:
    batch = [Claim(table.READY), Claim(table.HELD), Claim(table.READY)]
    with pytest.raises(table.IllegalTransition):
        table.advance_all(batch, table.RUNNING)
    assert [claim.state for claim in batch] == [table.RUNNING, table.HELD, table.READY]


def test_every_state_can_end() -> None:
    for start in range(len(table.NAMES)):
        seen, edge = {start}, {start}
        while edge:
            edge = {target for state in edge for target in table.TRANSITIONS[state]} - seen
            seen |= edge
        assert seen & table.ENDS, table.NAMES[start]

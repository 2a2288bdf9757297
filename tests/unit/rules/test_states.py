from celeriac.rules import states


def test_precedence_is_celerys_order() -> None:
    order = ["SUCCESS", "FAILURE", "PROGRESS", "REVOKED", "STARTED", "RECEIVED", "REJECTED", "RETRY", "PENDING"]
    ranks = [states.precedence(state) for state in order]
    assert ranks == sorted(set(ranks))


def test_states_compare_by_precedence() -> None:
    assert states.State("PENDING") < states.State("STARTED") < states.State("SUCCESS")
    assert states.State("CUSTOM") > states.State("REVOKED")
    assert states.State("FAILURE") >= states.State("FAILURE") <= states.State("SUCCESS")
    assert max(states.State("RETRY"), states.State("FAILURE")) == "FAILURE"

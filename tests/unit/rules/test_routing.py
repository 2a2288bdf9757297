import re
from typing import Any

import pytest

from celeriac.errors import ImproperlyConfigured, QueueNotFound
from celeriac.rules.routing import MissingQueues, Router, compile_routes
from celeriac.transports.base import QueueSpec, Route

QUEUES = {
    "celery": QueueSpec(name="celery", exchange="celery", routing_key="celery"),
    "feeds": QueueSpec(name="feeds", exchange="media", exchange_type="topic", routing_key="media.feeds"),
    "fast": QueueSpec(name="fast", exchange="fast", routing_key="fast"),
}


def target(router: Router, options: dict[str, Any] | None = None, name: str = "app.add") -> tuple[str, str]:
    routed = router.route(options or {}, name, (1,), {})
    return routed.route.exchange, routed.route.routing_key


def test_without_routes_the_default_queue_is_named_directly() -> None:
    assert target(Router(QUEUES)) == ("", "celery")
    assert target(Router(QUEUES, default_queue="fast")) == ("", "fast")


def test_a_topic_queue_is_reached_through_its_exchange() -> None:
    routed = Router(QUEUES).route({"queue": "feeds"}, "app.add")
    assert routed.route == Route("media", "media.feeds", "topic")
    assert routed.queue is QUEUES["feeds"]


def test_the_call_beats_the_route_and_nones_do_not_count() -> None:
    router = Router(QUEUES, {"app.add": {"queue": "feeds", "priority": 3, "serializer": "yaml"}})
    assert target(router, {"queue": "fast"}) == ("", "fast")
    routed = router.route({"priority": 9, "serializer": None, "queue": None}, "app.add")
    assert routed.queue.name == "feeds"
    assert routed.options == {"priority": 9, "serializer": "yaml"}


def test_exact_names_win_over_patterns_and_patterns_go_in_order() -> None:
    routes = {"app.*": "feeds", re.compile(r"app\.(add|mul)"): "celery", "app.add": "fast", "*.x": "celery"}
    router = Router(QUEUES, routes)
    assert target(router, name="app.add") == ("", "fast")
    assert target(router, name="app.mul") == ("media", "media.feeds")
    assert target(router, name="other.x") == ("", "celery")


def test_a_glob_covers_the_whole_name() -> None:
    router = Router(QUEUES, {"feed.tasks.*": "fast"})
    assert target(router, name="feed.tasks.import") == ("", "fast")
    assert target(router, name="feedXtasks.import") == ("", "celery")
    assert target(router, name="my.feed.tasks.import") == ("", "celery")


def test_lists_mix_pairs_mappings_functions_and_objects() -> None:
    class ByMethod:
        def route_for_task(self, name: str, args: Any, kwargs: Any) -> Any:
            return {"queue": "feeds"} if name == "by.method" else None

    def by_function(name: str, args: Any, kwargs: Any, options: Any, task: Any = None) -> Any:
        return "fast" if name == "by.function" and args == (1,) else None

    router = Router(QUEUES, [("by.pair", "fast"), by_function, {"by.map": {"queue": "feeds"}}, ByMethod()])
    assert target(router, name="by.pair") == ("", "fast")
    assert target(router, name="by.function") == ("", "fast")
    assert target(router, name="by.map") == ("media", "media.feeds")
    assert target(router, name="by.method") == ("media", "media.feeds")
    assert target(router, name="by.nobody") == ("", "celery")


def test_a_function_is_asked_for_every_call() -> None:
    answers = iter(["fast", "feeds"])
    router = Router(QUEUES, lambda *_, **__: next(answers))
    assert target(router) == ("", "fast")
    assert target(router) == ("media", "media.feeds")


def test_dotted_paths_are_resolved_by_the_one_who_can_import() -> None:
    found = compile_routes("some.module.routes", {"some.module.routes": {"a": "fast"}}.__getitem__)
    assert target(Router(QUEUES, "x", resolve=lambda _: {"app.add": "fast"})) == ("", "fast")
    assert len(found) == 1
    with pytest.raises(ImproperlyConfigured, match="dotted path"):
        compile_routes("some.module.routes")


def test_senseless_routes_are_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="task_routes"):
        compile_routes(7)


def test_an_explicit_key_or_exchange_is_kept() -> None:
    router = Router(QUEUES)
    assert target(router, {"exchange": "logs", "routing_key": "a.b"}) == ("logs", "a.b")
    assert target(router, {"queue": "feeds", "routing_key": "media.other"}) == ("media", "media.other")
    assert target(router, {"exchange": "logs", "exchange_type": "topic"}) == ("logs", "celery")


def test_half_a_direct_route_goes_to_the_queue_itself() -> None:
    """Celery's rule: many projects give a queue and a key that no binding has."""
    router = Router(QUEUES)
    assert target(router, {"exchange": "logs"}) == ("", "celery")
    assert target(router, {"routing_key": "no.such.key"}) == ("", "celery")
    assert target(router, {"queue": "fast", "routing_key": "no.such.key"}) == ("", "fast")
    assert target(router, {"queue": "fast", "exchange": "logs", "routing_key": "k"}) == ("logs", "k")


def test_missing_queues_are_made_on_demand_or_refused() -> None:
    made = Router(QUEUES, missing=MissingQueues(max_priority=5)).route({"queue": "new"}, "app.add")
    assert made.route == Route("", "new")
    assert (made.queue.exchange, made.queue.routing_key, made.queue.max_priority) == ("new", "new", 5)
    with pytest.raises(QueueNotFound, match="'new' is not in task_queues"):
        Router(QUEUES, missing=MissingQueues(create=False)).route({"queue": "new"}, "app.add")


def test_a_remembered_answer_is_not_changed_by_its_reader() -> None:
    router = Router(QUEUES, {"app.add": {"queue": "fast", "priority": 1}})
    router.route({}, "app.add").options["priority"] = 99
    assert router.route({}, "app.add").options == {"priority": 1}
    assert router.route({"expires": 5}, "app.add").options == {"priority": 1, "expires": 5}

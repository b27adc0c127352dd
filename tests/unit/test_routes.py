"""Which connections a login tries, and in what order."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.lifecycle import InvalidTransition
from proxy.routes import NoSuchRealm, NoSuchRole, ProxyRoute, RouteTable
from support.planes import Rig

CONTROLLER = Rig().controller


def started(realm: str, number: int, roles: dict[str, list[str]]) -> ProxyRoute:
    route = ProxyRoute(CONTROLLER, realm, f"route{number:03d}", roles)
    route.start()
    return route


def table(*routes: ProxyRoute) -> RouteTable:
    result = RouteTable()
    for route in routes:
        result.add(route)
    return result


def test_round_robin_in_the_order_of_the_list():
    routes = table(started("realm1", 1, {"user": ["c", "a", "b"]}))
    picks = [routes.pick("realm1", "user") for _ in range(4)]
    assert picks == [("c", "a", "b"), ("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b")]


def test_each_realm_and_role_has_its_own_turn():
    routes = table(started("one", 1, {"x": ["a", "b"], "y": ["a", "b"]}), started("two", 2, {"x": ["a", "b"]}))
    assert [routes.pick(realm, role)[0] for realm, role in (("one", "x"), ("one", "y"), ("two", "x"))] == ["a"] * 3
    assert routes.pick("one", "x")[0] == "b"


def test_unknown_realm_and_role_are_told_apart():
    routes = table(started("realm1", 1, {"user": ["a"]}))
    with pytest.raises(NoSuchRealm):
        routes.pick("realm2", "user")
    with pytest.raises(NoSuchRole):
        routes.pick("realm1", "User")
    assert routes.has_realm("realm1")
    assert not routes.has_realm("realm2")
    assert routes.has_role("realm1", "user")
    assert not routes.has_role("realm1", "admin")


def test_routes_for_the_same_role_add_up():
    # Crossbar.io's node starts one route for each connection of a list.
    routes = table(started("realm1", 1, {"user": ["a"]}), started("realm1", 2, {"user": ["b"]}))
    assert [routes.pick("realm1", "user") for _ in range(2)] == [("a", "b"), ("b", "a")]


def test_a_connection_named_twice_counts_once():
    routes = table(started("realm1", 1, {"user": ["a", "b"]}), started("realm1", 2, {"user": ["b"]}))
    assert Counter(routes.pick("realm1", "user")[0] for _ in range(10)) == {"a": 5, "b": 5}


def test_a_stopped_route_is_gone_at_once():
    first, second = started("realm1", 1, {"user": ["a"], "admin": ["a"]}), started("realm1", 2, {"user": ["b"]})
    routes = table(first, second)
    routes.remove(first)
    assert routes.pick("realm1", "user") == ("b",)
    with pytest.raises(NoSuchRole):
        routes.pick("realm1", "admin")
    routes.remove(second)
    assert not routes.has_realm("realm1")
    assert routes.realms() == []
    with pytest.raises(NoSuchRealm):
        routes.pick("realm1", "user")


def test_another_route_does_not_disturb_the_turn():
    routes = table(started("realm1", 1, {"user": ["a", "b"]}))
    routes.pick("realm1", "user")
    routes.add(started("realm1", 2, {"admin": ["a"]}))
    assert routes.pick("realm1", "user")[0] == "b"


def test_what_is_left_out_passes_its_turn_and_the_rest_share_evenly():
    routes = table(started("realm1", 1, {"user": ["a", "b", "c"]}))
    first = [routes.pick("realm1", "user", lambda name: name != "a") for _ in range(12)]
    assert Counter(ids[0] for ids in first) == {"b": 6, "c": 6}
    assert all(sorted(ids) == ["a", "b", "c"] for ids in first), "nothing is lost: it may be tried as the last resort"


def test_the_turn_goes_on_when_all_are_left_out():
    routes = table(started("realm1", 1, {"user": ["a", "b"]}))
    assert Counter(routes.pick("realm1", "user", lambda _: False)[0] for _ in range(10)) == {"a": 5, "b": 5}


names = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True)


@given(names, st.sets(st.sampled_from("abcdef")), st.integers(1, 30))
def test_a_pick_is_a_rotation_that_begins_with_a_usable_connection(ids, down, count):
    routes = table(started("realm1", 1, {"user": ids}))
    for _ in range(count):
        picked = routes.pick("realm1", "user", lambda name: name not in down)
        assert picked in [(*ids[index:], *ids[:index]) for index in range(len(ids))]
        assert picked[0] not in down or set(ids) <= down


def test_marshalled_form():
    route = ProxyRoute(CONTROLLER, "realm1", "route001", {"user": "a", "admin": ["a", "b"]})
    expected = {"realm": "realm1", "id": "route001", "config": {"user": "a", "admin": ["a", "b"]}}
    assert route.marshal() == {**expected, "started": None, "stopped": None, "state": 1}
    route.start()
    shown = route.marshal()
    assert (shown["state"], type(shown["started"]), shown["stopped"]) == (3, int, None)
    route.stop()
    shown = route.marshal()
    assert (shown["state"], shown["started"], type(shown["stopped"])) == (6, None, int)
    with pytest.raises(InvalidTransition):
        route.stop()


def test_routes_that_use_a_connection():
    first, second = started("one", 1, {"user": ["a", "b"]}), started("two", 2, {"user": ["b"]})
    routes = table(first, second)
    assert list(routes.using("b")) == [first, second]
    assert list(routes.using("a")) == [first]
    assert list(routes.using("c")) == []

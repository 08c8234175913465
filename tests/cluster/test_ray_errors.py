# SPDX-License-Identifier: Apache-2.0
"""Every exception of Ray has its translation."""

import importlib
import inspect

import pytest
import ray.exceptions

from fedray.errors import PartyError, PartyLost, PartyTimeout, PlanError
from fedray.runtime.ray_errors import TABLE, translate, versions


def every_class():
    return {
        name: kind
        for name, kind in vars(ray.exceptions).items()
        if inspect.isclass(kind) and issubclass(kind, Exception) and kind.__module__ == ray.exceptions.__name__
    }


def test_no_exception_of_ray_is_left_out():
    assert set(every_class()) - set(TABLE) == set()


@pytest.mark.parametrize("name", sorted(every_class()))
def test_each_is_translated_with_party_and_call(name):
    bare = {"__init__": lambda _: None, "__str__": lambda _: "why"}  # each wants arguments of its own
    made = translate(type(name, (every_class()[name],), bare)(), "bob", "deliver")
    assert type(made) is TABLE[name]
    assert str(made).startswith("party 'bob' ")
    assert "(deliver)" in str(made)
    assert getattr(made, "party", "bob") == "bob"


def test_what_matters_most():
    wanted = {
        "ActorDiedError": PartyLost,
        "ActorUnavailableError": PartyLost,
        "NodeDiedError": PartyLost,
        "GetTimeoutError": PartyTimeout,
        "RayTaskError": PartyError,
        "RuntimeEnvSetupError": PlanError,
    }
    assert {name: TABLE[name] for name in wanted} == wanted


def test_a_new_class_of_ray_is_treated_as_its_base_and_a_foreign_one_as_an_error_of_the_party():
    class NewError(ray.exceptions.ActorDiedError):
        pass

    assert type(translate(NewError(), "bob", "x")) is PartyLost
    assert type(translate(RuntimeError("why"), "bob", "x")) is PartyError


def test_only_the_first_line_of_rays_advice_is_kept():
    error = ray.exceptions.GetTimeoutError("timed out\nThere are many reasons.\n" + "advice " * 500)
    assert str(translate(error, "bob", "x")).endswith("(x): timed out")


def test_how_a_party_was_lost_is_said_without_actors():
    class ActorDiedError(Exception):
        pass

    said = str(translate(ActorDiedError("The actor died unexpectedly before finishing this task.\nadvice"), "bob", "x"))
    assert said == "party 'bob' has ended or cannot be reached (x): its process ended before it had answered"
    said = str(translate(ActorDiedError("The actor died because its node has died. Node Id: 12"), "bob", "x"))
    assert said.endswith("(x): its node has ended, or was out of reach for a minute")


def test_which_versions_differ_is_read_from_what_ray_says():
    check = importlib.import_module("ray._private.utils").check_version_info
    with pytest.raises(RuntimeError) as caught:
        check({"ray_version": "1.2.3", "python_version": "3.4.5"}, "10.0.0.2:6379")
    said = versions(str(caught.value))
    assert said.startswith(f"the cluster has Ray 1.2.3 and Python 3.4.5, this machine has Ray {ray.__version__} and ")
    assert said.endswith("install the same versions on every machine")
    assert versions("nobody answers") is None

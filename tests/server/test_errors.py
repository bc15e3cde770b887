"""The tree at the top of `server/errors.py` is the tree of its classes, with the status of each."""

import inspect
import re

import pytest

from server import errors
from server.api.error_responses import to_response
from server.errors import ErrorResponse, ModelError, RequestError, ServerError
from server.jobs import outcomes

NODE = re.compile(r"^(?P<indent>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: +(?P<status>\d{3}))?(?: .*)?$")


def drawn() -> dict[str, tuple[str, str | None]]:
    """Of every class in the docstring: its parent and its status."""
    tree: dict[str, tuple[str, str | None]] = {}
    parents = [""]
    _, _, text = (errors.__doc__ or "").partition("\n\n")
    for line in text.partition("\n\n")[0].splitlines():
        node = NODE.match(line)
        assert node is not None, line
        depth = len(node["indent"]) // 4
        parents[depth + 1 :] = [node["name"]]
        tree[node["name"]] = (parents[depth], node["status"])
    return tree


def defined() -> dict[str, type[ServerError]]:
    found = dict(inspect.getmembers(errors, inspect.isclass))
    return {name: kind for name, kind in found.items() if issubclass(kind, ServerError)}


def test_the_tree_is_true() -> None:
    tree, classes = drawn(), defined()
    assert tree.keys() == classes.keys()
    for name, (parent, status) in tree.items():
        assert classes[name].__bases__[0].__name__ == (parent or "Exception"), name
        own = getattr(classes[name], "status", None)
        is_group = bool(classes[name].__subclasses__()) and status is None
        assert is_group or str(own) == (status or "None"), name


@pytest.mark.parametrize("name", [name for name, value in vars(outcomes).items() if isinstance(value, ErrorResponse)])
def test_an_outcome_is_a_response_with_its_type(name: str) -> None:
    outcome = getattr(outcomes, name)
    response = to_response(outcome, {"x-fal-request-id": "ID"})
    assert (response.status_code, response.headers["x-fal-request-id"]) == (outcome.status, "ID")
    assert {"x-fal-error-type", "x-fal-retryable"} & set(response.headers), "clients decide by it whether to retry"


@pytest.mark.parametrize("kind", [RequestError, ModelError])
def test_no_error_is_a_success(kind: type[RequestError | ModelError]) -> None:
    leaves = [one for one in defined().values() if issubclass(one, kind) and hasattr(one, "status")]
    assert leaves
    assert all(400 <= one.status < 600 for one in leaves)

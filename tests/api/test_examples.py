"""The examples of the API's reference are what the routes take."""

import pytest
from pydantic import TypeAdapter
from saveos.app import FEATURES
from saveos.core.examples import EXAMPLES

ROUTES = {
    (method, route.path): route
    for feature in FEATURES
    for route in feature.router.routes
    for method in route.methods
}


@pytest.mark.parametrize("asked", EXAMPLES, ids=" ".join)
def test_an_example_is_what_its_route_takes(asked):
    (body,) = ROUTES[asked].dependant.body_params
    TypeAdapter(body.field_info.annotation).validate_python(EXAMPLES[asked])

"""Cases that schemathesis makes of the OpenAPI document: never a 5xx, whoever asks."""

import os

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

CASES = int(os.environ.get("SAVEOS_CASES", "4"))  # for each route; read here, before fixtures clear SAVEOS_*


@pytest.fixture
def database_kind():
    return "sqlite"


def test_no_generated_request_makes_a_server_error(api, application, routes):
    schema = schemathesis.openapi.from_asgi(
        "/openapi.json", application, headers={"Authorization": f"Bearer {api.token}"}
    )
    tried = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.endswith(("/events", "/auth/login")) or "scan" in operation.path:
            continue  # a stream that does not end, a limit that is meant to be hit, a slow network call

        @settings(
            max_examples=CASES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @_given(operation)
        def check(case):
            nonlocal tried
            tried += 1
            answer = case.call(headers={"Authorization": f"Bearer {api.token}"})
            assert answer.status_code < 500, f"{case.method} {case.formatted_path}: {answer.text}"

        check()
    assert tried > 2 * len(routes)


def _given(operation):
    from hypothesis import given
    from schemathesis import GenerationMode

    modes = [
        operation.as_strategy(generation_mode=mode)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    ]
    return given(case=st.one_of(*modes))

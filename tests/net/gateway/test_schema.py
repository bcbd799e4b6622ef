"""Claim: whatever is asked in the terms of the description, or against them, is answered as it says."""

import copy
from collections import Counter
from contextlib import nullcontext
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .conftest import GatewayProcess

EXAMPLES_PER_OPERATION = 12
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def described(gateway: GatewayProcess) -> dict[str, Any]:
    told: dict[str, Any] = httpx.get(f"{gateway.url}/openapi.json", timeout=30).json()
    return told


def test_every_operation_answers_as_it_is_described(gateway: GatewayProcess, described: dict[str, Any]) -> None:
    schema = schemathesis.openapi.from_dict(described)
    seen: Counter[int] = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.endswith(("/events", "/stream")):
            continue  # they do not end
        strategy = st.one_of(
            operation.as_strategy(generation_mode=mode)
            for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
        )

        @given(case=strategy)
        @settings(
            max_examples=EXAMPLES_PER_OPERATION,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: schemathesis.Case) -> None:
            response = case.call(base_url=gateway.url, timeout=30)
            seen[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        ask()
    assert seen.total() > 200
    assert {200, 400, 404} <= set(seen)


def test_an_answer_that_is_not_described_is_found(gateway: GatewayProcess, described: dict[str, Any]) -> None:
    poorer = copy.deepcopy(described)
    del poorer["paths"]["/problems/{code}"]["get"]["responses"]["404"]
    for told, is_fault in ((described, False), (poorer, True)):
        case = schemathesis.openapi.from_dict(told)["/problems/{code}"]["GET"].Case(path_parameters={"code": "NONE"})
        response = case.call(base_url=gateway.url, timeout=30)
        assert response.status_code == 404
        with pytest.raises(FailureGroup) if is_fault else nullcontext():
            case.validate_response(response, checks=CHECKS)

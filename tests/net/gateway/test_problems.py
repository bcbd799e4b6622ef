"""Claim: there is a problem, with one status, for every result code and for all that the gateway refuses by itself."""

from typing import Any

import httpx
import pytest

from bezant.net.client.results import RESULT_ROW, UNKNOWN_ROW, ResultRow, result_of
from bezant.net.gateway.problems import PROBLEMS, GatewayProblem, problem_of_result, raised_by, refusal, rendered
from bezant.protocol import errors
from bezant.protocol.codes import CODE_ROW, ResultCode
from bezant.protocol.errors import BezantError, RequestRefused
from bezant.protocol.frames import FrameError

from .conftest import problem

REFUSALS = [code for code in ResultCode if code is not ResultCode.COMMITTED]


def row_of(code: int, detail: int = 0, flags: int = 0) -> ResultRow:
    row: Any = (code, flags, detail, 7, 1, 0, 0, 0, 0, 0)
    assert RESULT_ROW.pack(*row)
    return row


@pytest.mark.parametrize("code", REFUSALS)
def test_every_result_code_is_a_problem_with_its_status(code: ResultCode) -> None:
    told = problem_of_result(result_of(row_of(code, 5), bytes(16), 2), "text")
    assert told.code == code.name
    assert told.status == CODE_ROW[code].http_status == PROBLEMS[code.name].status
    assert told.result_code == code
    assert told.retryable == CODE_ROW[code].retry_helps
    assert told.transaction_id == "text"
    assert told.field == ("amount" if code in {ResultCode.ID_CONFLICT, ResultCode.FIELD_NOT_ALLOWED} else None)
    status, headers, _ = rendered(told)
    assert status == told.status
    assert (b"retry-after" in dict(headers)) == (told.status in {429, 503}), told


def test_the_table_is_of_the_result_codes_and_of_the_gateways_own() -> None:
    assert set(PROBLEMS) == {code.name for code in REFUSALS} | {kind.name for kind in GatewayProblem}
    assert all(200 < row.status < 600 for row in PROBLEMS.values())


def test_an_unknown_outcome_says_what_to_do() -> None:
    told = problem_of_result(result_of(UNKNOWN_ROW, bytes(16), 2), "text")
    assert (told.status, told.code, told.retryable, told.position) == (504, "OUTCOME_UNKNOWN", True, None)
    assert "repeat the request with the same id" in told.title


ALL_ERRORS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, BezantError) and not issubclass(kind, RequestRefused)
]


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_every_exception_of_the_sdk_is_a_problem(kind: type[BezantError]) -> None:
    for is_command in (False, True):
        told = raised_by(kind("why"), is_command=is_command).problem
        assert told.detail == "why"
        assert (told.code == "INTERNAL_ERROR") == (
            not issubclass(kind, errors.UsageError | errors.RemoteProtocolError | errors.ConnectionFailed)
            and kind is not errors.ReceiptInvalid
        )
        if issubclass(kind, errors.ConnectionFailed):
            assert (told.code == "OUTCOME_UNKNOWN") == is_command


@pytest.mark.parametrize("code", FrameError)
def test_what_the_node_refuses_for_now_can_be_asked_again(code: FrameError) -> None:
    told = raised_by(RequestRefused(code, "why"), is_command=True).problem
    assert told.retryable == (code in {FrameError.OVERLOADED, FrameError.BEHIND, FrameError.NOT_LEADER})


@pytest.mark.parametrize(
    ("code", "told"), [(FrameError.FORBIDDEN, "FORBIDDEN"), (FrameError.UNAUTHENTICATED, "UNAUTHENTICATED")]
)
def test_whom_the_node_does_not_let_in(code: FrameError, told: str) -> None:
    assert raised_by(errors.AccessDenied(code, "why"), is_command=True).problem.code == told


def test_what_does_not_apply_is_left_out() -> None:
    body = rendered(refusal(GatewayProblem.NOT_FOUND).problem)[2]
    assert body == (
        b'{"type":"/problems/NOT_FOUND","title":"there is nothing there","status":404,"code":"NOT_FOUND",'
        b'"retryable":false}'
    )


def test_the_type_of_a_problem_leads_to_what_it_means(client: httpx.Client) -> None:
    listed = client.get("/problems").json()["problems"]
    assert [row["code"] for row in listed] == list(PROBLEMS)
    for row in listed:
        assert client.get(f"/problems/{row['code']}").json() == row
    problem(client.get("/problems/NO_SUCH_THING"), "NOT_FOUND")


def test_what_is_no_route_is_a_problem(client: httpx.Client) -> None:
    problem(client.get("/nowhere"), "NOT_FOUND")
    refused = client.get("/v1/wallet/balance_transfer")
    problem(refused, "METHOD_NOT_ALLOWED")
    assert "POST" in refused.headers["allow"]
    problem(
        client.post("/v1/wallet/balance_transfer", content=b"{}", headers={"content-type": "text/plain"}),
        "MEDIA_TYPE_UNSUPPORTED",
    )

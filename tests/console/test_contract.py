"""The whole API against its own OpenAPI document, by schemathesis and by hand: no server errors, no answer that is not written there.

One pass runs over PostgreSQL, a longer one over SQLite; CANDLELAKE_TEST_API_EXAMPLES=5000 tries so many of each, other ones each time.
"""

import gc
import json
import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote, unquote

import pytest
import schemathesis
from fastapi import Depends, FastAPI
from fastapi.responses import PlainTextResponse
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core import NotSet
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from console.app import document
from tests.console.home import YAML, Caller, furnished_home
from tests.console.prefect import NUMBER, answering_prefect

EXAMPLES = int(os.environ.get("CANDLELAKE_TEST_API_EXAMPLES", "0"))  # read here: a fixture cleans the environment of each test
CHECKS = [status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance]
STRONG = {"root read manage", "root page", "staff read manage", "ann read manage", "ann page", "bob read manage"}
SLOW = ("/live", "/connections/{slug}/test")  # calls that wait: a tenth of the others
KEEP = object()  # what schemathesis made up
ABSURD = ["\0", "x\0y", "\ue000", "\ue000\ue000", "\u202e", "x" * 5000, "-1", "1" * 400, "NaN", "' OR 1=1 --", "../../etc", "%00", "\r\nset-cookie: a=b"]
INSTANTS = ["2026-01-05", "2026-01-05T00:10:00Z", "2026-01-05T04:00:00+14:00", "1970-01-01", "2100-01-01", "2099-12-31T23:59:59.999999Z",
            "1969-12-31T23:59:59Z", "0001-01-01", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2026-W01-1", ""]
NUMBERS = [0, 1, 2, 5, 1000, 10_000, 10_001, -1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, 1.5, 1e308, float("inf"), float("nan"), True]
# What a name may be, so that calls meet something that is there; DELETE gets what nobody misses.
POOLS = {
    "slug": ["anns", "anns", "house", "bobs", "spare"], "name": ["crossing", "crossing", "challenger", "crossing2"], "number": [NUMBER],
    "note": [1, 2], "provider": ["ccxt:kraken", "mtapi:mt5", "replay", "ccxt:nobody"], "symbol": ["BTC/USD", "BTC/USD", "anns:BTC/USD", "BTC/USD:1m"],
    "timeframe": ["1m", "1m", "1h", "1M"], "resolution": ["1", "60", "D"], "start": INSTANTS, "end": INSTANTS, "as_of": INSTANTS,
    "from": [0, 1_767_571_200], "to": [1_767_585_600, 4_102_444_800], "limit": NUMBERS, "countback": NUMBERS, "before": NUMBERS, "after": NUMBERS,
    "actor": ["root", "ann"], "action": ["login"], "outcome": ["done"], "subject": ["anns"], "health": ["ok", "stale"], "type": ["forex", "crypto"], "unseen": ["true", "maybe"], "skip": NUMBERS,
    "retention_days": NUMBERS, "purge": ["true", "maybe"], "query": ["btc", ""], "flow": ["fetch", "backfill", "repair", "cleanup", "replay", "compare"],
    "challenger": ["challenger"], "definition": [YAML, YAML.replace("crossing", "crossing2"), "name: [", "&a [*a, *a]", "[" * 30, "name: \ue000", "1e999999"],
    "symbols": [["BTC/USD"], ["ETH/USD", "\0"], ["\ue000"]], "timeframes": [["1m"], ["7m"], ["\0"]], "base_url": ["http://127.0.0.1:9", "file:///etc/passwd"],
    "settings": [{"retention_days": 30}, {"retention_days": 10**400}, {"overlap_candles": "\0"}, {"\ue000": 1}, {"settle_seconds": float("nan")}],
    "credentials": [{"api_key": "k", "secret": "s"}, {"api_key": "\0"}, {"\0": "x"}, {"api_key": "\ue000"}],
}


@dataclass(frozen=True)
class Contract:
    """The document's calls, and who may ask."""

    operations: list
    callers: list


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    """A furnished home with consoles of every kind, and what their document says."""
    with contract_of(tmp_path_factory.mktemp("contract")) as found:
        yield found


@contextmanager
def contract_of(folder, **more):
    """Furnish a home with more settings; nothing leaves this machine."""
    real = socket.getaddrinfo

    def local(host, *rest, **more):
        """Resolve loopback alone."""
        if host not in {"127.0.0.1", "localhost", b"127.0.0.1", None}:
            raise socket.gaierror(socket.EAI_NONAME, "names are not resolved in this test")
        return real(host, *rest, **more)

    with pytest.MonkeyPatch.context() as patched, answering_prefect() as (url, _):
        patched.setattr(socket, "getaddrinfo", local)
        patched.setattr("console.live.LOOK_SECONDS", 0.05)
        with furnished_home(folder, url, **more) as (_, app, callers):
            # Refusals are tried one by one in test_policies: here most of those who ask are let in.
            strong = [caller for caller in callers if caller.name in STRONG]
            yield Contract(operations_of(app), [*strong, *callers, *strong, *strong, *strong])
    gc.collect()  # what schemathesis keeps of a home ends here, not in somebody else's test


def operations_of(app):
    """Return every call of an app's document, ready to be asked."""
    schema = schemathesis.openapi.from_dict(document(app))
    schema.app = app
    return [found.ok() for found in schema.get_all_operations()]


@st.composite
def asked(draw, operation, mode):
    """Draw a call: schemathesis' own, most often with names of what is there or with absurd values in some places."""
    case = draw(operation.as_strategy(mode))
    deletes = operation.method.upper() == "DELETE"
    names = {name: unquote(str(_chosen(draw, name, value, deletes=deletes))) for name, value in (case.path_parameters or {}).items()}
    assume(not any(value in {"", ".", ".."} or "/" in value for value in names.values()))  # these are other paths
    if "token_id" in names:  # a token that is revoked would leave its bearer outside for the rest of the test
        names["token_id"] = f"9999{names['token_id']}"[:20]
    case.path_parameters = {name: quote(value, safe="") for name, value in names.items()}
    if isinstance(case.query, dict):
        names = {*case.query, *(name for name in POOLS if name in {item.name for item in operation.query} and draw(st.booleans()))}
        case.query = {name: _chosen(draw, name, case.query.get(name)) for name in sorted(names)}
    if isinstance(case.body, dict):
        case.body = {name: _chosen(draw, name, value, wild=True) for name, value in case.body.items()}
    if operation.path.endswith("/live"):
        case.query = {**(case.query if isinstance(case.query, dict) else {}), "seconds": draw(st.sampled_from(["1", "0", "x"]))}
    return case


def _chosen(draw, name, value, *, deletes=False, wild=False):
    """Return the value, one from the pool of its name, or an absurd one."""
    pool = ["spare", "absent"] if deletes else POOLS.get(name, [])
    found = draw(st.sampled_from([*pool, KEEP, *([*ABSURD, *NUMBERS] if draw(st.integers(0, 9)) == 0 and (wild or name not in {"slug", "name"}) else [])]))
    if found is KEEP:
        return value
    if wild or not isinstance(found, str):
        return found
    return found.encode("utf-8", "replace").decode()  # an address cannot hold half a character


def tried(operation, callers, examples, *, is_random=False):
    """Ask one call in many ways by many people; raises at the first answer that is not in the document."""
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        if mode is GenerationMode.NEGATIVE and not (len(operation.query) or operation.body):
            continue  # there is nothing to be wrong

        @given(case=asked(operation, mode), caller=st.sampled_from(callers))
        @settings(max_examples=examples, database=None, derandomize=not is_random, deadline=None,
                  suppress_health_check=list(HealthCheck), phases=[Phase.generate])
        def ask(case, caller):
            """Ask, and compare with the document."""
            answer = case.call(base_url="http://127.0.0.1", headers=caller.headers, app=caller.app, **_sent(case.body))
            assert answer.status_code < 500 or answer.status_code == 503, (operation.label, answer.status_code, answer.text[:300])
            try:
                case.validate_response(answer, checks=CHECKS)
            except BaseException as error:
                error.add_note(f"asked by {caller.name}")
                raise

        ask()


def _sent(body):
    """Return a body as a careless program sends it: with NaN, numbers without end and halves of characters."""
    if isinstance(body, NotSet):
        return {}
    text = body if isinstance(body, bytes) else json.dumps(body).replace("\\ue000", "\\ud800").encode()
    return {"data": text}


@pytest.mark.slow
def test_every_call_answers_as_written(tmp_path, postgres_url):
    """A few ways to ask each call over PostgreSQL, by people of every kind: no server error, no status, type or shape that is not in the document."""
    with contract_of(tmp_path, metadata_url=postgres_url) as found:
        for operation in found.operations:
            if not operation.path.endswith(SLOW):
                tried(operation, found.callers, EXAMPLES or 3, is_random=bool(EXAMPLES))
    gc.collect()


@pytest.mark.slow
@pytest.mark.timeout(max(300, EXAMPLES * 60))
def test_every_call_answers_as_written_whoever_asks(contract):
    """The same in many more ways: CANDLELAKE_TEST_API_EXAMPLES of each call, correct and incorrect ones."""
    for operation in contract.operations:
        count = EXAMPLES or 20
        tried(operation, contract.callers, count // 10 if operation.path.endswith(SLOW) else count, is_random=bool(EXAMPLES))


@pytest.mark.parametrize(("answer", "failure"), [
    (lambda: 1 / 0, None), (lambda: PlainTextResponse("x"), "Undocumented Content-Type"),
    (lambda: PlainTextResponse("x", 418), "Undocumented status code"), (lambda: {"count": "many"}, "Response violates schema")])
def test_a_fault_would_be_found(answer, failure):
    """The checks that the other tests rely on do find a crash, another type, another status and another shape."""
    planted = FastAPI()
    shape = {200: {"content": {"application/json": {"schema": {"type": "object", "properties": {"count": {"type": "integer"}}}}}}}
    planted.add_api_route("/planted", answer, response_model=None, responses=shape, dependencies=[Depends(lambda: None)])
    schema = schemathesis.openapi.from_dict(planted.openapi())
    schema.app = planted
    (operation,) = [found.ok() for found in schema.get_all_operations()]
    with pytest.raises((AssertionError, ZeroDivisionError, BaseExceptionGroup)) as caught:
        tried(operation, [Caller("nobody", planted, {})], 1)
    assert isinstance(caught.value, ZeroDivisionError) if failure is None else failure in str(caught.value)


def test_every_answer_has_a_type(contract):
    """No call answers with any object: lists and objects of JSON name their fields or what their values are."""
    document_of = contract.operations[0].schema.raw_schema
    for path, methods in document_of["paths"].items():
        for method, operation in methods.items():
            (good,) = [status for status in operation["responses"] if status.startswith("2")]
            content = operation["responses"][good].get("content", {})
            assert content, (method, path)
            schema = content.get("application/json", {}).get("schema")
            schema = schema.get("items", schema) if schema else None
            assert schema is None or schema.keys() & {"$ref", "anyOf"} or schema.get("type") == "string" or "$ref" in schema.get(
                "additionalProperties", {}), (method, path, schema)

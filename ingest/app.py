"""The ingest's entry point: finds the route, lets its dialect answer, and adds the headers that every response has.

`handler` is built when the attribute is first read, which Lambda's runtime does during INIT.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ingest import (
    aws_client,
    budget,
    events_api,
    identity,
    js_sdk,
    keyring,
    mobile_sdk,
    overflow,
    pixel,
    policy,
    postback,
    records_api,
    stream,
)
from ingest.aws_client import (
    AwsClient,
    DynamoDbClient,
    KinesisClient,
    S3Client,
    SecretsManagerClient,
    SqsClient,
)
from ingest.budget import Budgets
from ingest.cors import Cors
from ingest.intake import Intake
from ingest.keyring import Keyring
from ingest.overflow import Overflow
from ingest.policy import PolicyReader
from ingest.privacy import Privacy
from ingest.proxies import Proxies
from ingest.rate import Rate
from ingest.refusal import ANSWERS, AnyCode, Refused
from ingest.request import Request
from ingest.response import Response, json_response, refusal_response
from ingest.stream import Stream
from shared import names
from shared.clock import Clock, SystemClock
from shared.settings import IngestSettings
from shared.telemetry import PowertoolsTelemetry, Telemetry

ANSWER_SECONDS = 9.6
"""Time budget of a request: 2 s for the secrets, 0.1 s for the counters, 3.5 s for the stream, 4 s for the queue. The function times out at 10 s."""

Handler = Callable[[Mapping[str, Any], object], dict[str, Any]]
"""What Lambda calls with an event (payload format 2.0) and a context."""


class Route(NamedTuple):
    """Which function answers a method and path, and how it renders a rejection.

    In a path, `{database}` matches a legal Treasure Data database name and `{table}` any non-empty segment.
    """

    method: str
    path: str
    answer: Callable[[Request, Intake], Response]
    refuse: Callable[[Refused], Response] = refusal_response


def _health(_request: Request, _intake: Intake) -> Response:
    return json_response(200, {"status": "ok"}, {"cache-control": "no-store"})


def _ready(_request: Request, intake: Intake) -> Response:
    """Answer an uptime check: 200 if events would become durable, else 503, which does not count as a failed request."""
    ready = intake.is_ready()
    status = {"status": "ready" if ready else "unavailable"}
    return json_response(200 if ready else 503, status, {"cache-control": "no-store"})


def _robots(_request: Request, _intake: Intake) -> Response:
    headers = {"content-type": "text/plain; charset=utf-8", "cache-control": "public, max-age=86400"}
    return Response(200, headers, "User-agent: *\nDisallow: /\n")


def _headers_only(_request: Request, _intake: Intake) -> Response:
    """Accept no event: link checkers and mail proxies send HEAD requests, and they have not displayed the page."""
    return Response(200, {"cache-control": "no-store"})


ROUTES = (
    Route("GET", "/pixel.gif", pixel.answer, pixel.refuse),
    Route("HEAD", "/pixel.gif", pixel.answer_head),
    Route("POST", "/pixel.gif", pixel.answer_ping, pixel.refuse),
    Route("POST", "/v1/events", events_api.answer),
    Route("POST", "/{database}/{table}", records_api.answer),
    Route("POST", "/js/v3/event/{database}/{table}", js_sdk.answer_post),
    Route("GET", "/js/v3/event/{database}/{table}", js_sdk.answer_get),
    Route("HEAD", "/js/v3/event/{database}/{table}", _headers_only),
    Route("POST", "/postback/v3/event/{database}/{table}", postback.answer),
    Route("GET", "/postback/v3/event/{database}/{table}", postback.answer),
    Route("HEAD", "/postback/v3/event/{database}/{table}", _headers_only),
    Route("POST", "/android/v3/event", mobile_sdk.answer),
    Route("POST", "/ios/v3/event", mobile_sdk.answer),
    Route("GET", "/", identity.answer_global_id),
    Route("GET", "/js/v3/global_id", identity.answer_global_id),
    Route("GET", "/js/v3/enable_global_id", identity.answer_global_id),
    Route("GET", "/get_cookie_id", identity.answer_site_id),
    Route("GET", "/health", _health),
    Route("HEAD", "/health", _health),
    Route("GET", "/health/ready", _ready),
    Route("HEAD", "/health/ready", _ready),
    Route("GET", "/robots.txt", _robots),
    Route("HEAD", "/robots.txt", _robots),
)
"""Every path also answers OPTIONS."""


class Paths:
    """Finds the routes of a path; literal paths take precedence over patterns."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        self._patterns: dict[tuple[str, ...], dict[str, Route]] = {}
        for route in routes:
            if "{" in route.path:
                self._patterns.setdefault(tuple(route.path.split("/")), {})[route.method] = route
            else:
                self._exact.setdefault(route.path, {})[route.method] = route

    def find(self, path: str) -> tuple[Mapping[str, Route], Mapping[str, str]]:
        """Return a path's routes by method, and its parameters."""
        if path in self._exact:
            return self._exact[path], {}
        parts = path.split("/")
        for pattern, routes in self._patterns.items():
            if len(pattern) == len(parts):
                pairs = list(zip(pattern, parts, strict=True))
                if all(_fits(name, part) for name, part in pairs):
                    return routes, {name[1:-1]: part for name, part in pairs if name[:1] == "{"}
        return {}, {}


def _allowed(routes: Mapping[str, Route]) -> str:
    return ", ".join([*routes, "OPTIONS"])


def _fits(name: str, part: str) -> bool:
    if name == "{database}":
        return names.is_database(part)
    return bool(part) if name == "{table}" else name == part


class IngestEffects(NamedTuple):
    """Everything outside of the function that it uses.

    Attributes:
        kinesis: a client that must not retry, because a repeated put could be on the stream twice.
        start: starts a read of the edge policy.
    """

    kinesis: KinesisClient
    sqs: SqsClient
    dynamodb: DynamoDbClient
    secrets: SecretsManagerClient
    s3: S3Client
    clock: Clock
    entropy: Callable[[int], bytes]
    telemetry: Telemetry
    start: policy.Start


class Ingest:
    """Answers requests. It is also the composition root: it builds every part once, from settings and effects.

    Lambda passes in AWS; tests, fault injection and benchmarks pass in their own.

    Args:
        settings: this stack's settings.
        effects: what the parts use.
        replaced: by class, the class that fault injection builds in its place.

    Attributes:
        keyring: verifies write keys.
        policies: reads the edge policy.
        stream: stores envelopes.
    """

    def __init__(
        self,
        settings: IngestSettings,
        effects: IngestEffects,
        replaced: Mapping[Any, Any] = MappingProxyType({}),
    ) -> None:
        self._clock = clock = effects.clock
        self._telemetry = telemetry = effects.telemetry

        def make[T](kind: type[T]) -> type[T]:
            found: type[T] = replaced.get(kind, kind)
            return found

        self.keyring = make(Keyring)(effects.secrets, settings.write_key_secret, clock, telemetry)
        self.policies = make(PolicyReader)(effects.s3, settings.data_bucket, clock, telemetry, effects.start)
        queue = make(Overflow)(
            effects.sqs, settings.overflow_queue_url, settings.overflow_notices_url, clock, telemetry
        )
        self.stream = make(Stream)(
            effects.kinesis,
            settings.stream_name,
            queue,
            clock=clock,
            entropy=effects.entropy,
            telemetry=telemetry,
        )
        self._cors = Cors(settings.allowed_origins)
        self._proxies = (
            Proxies(settings.trusted_proxies, self.keyring.proxy_secret) if settings.trusted_proxies else None
        )
        self._intake = Intake(
            self.keyring,
            self.policies,
            self.stream,
            Privacy(settings, self.keyring.hash_key),
            rate=Rate(settings.key_events_per_second, clock),
            budgets=make(Budgets)(effects.dynamodb, settings.counters_table, clock, telemetry),
            redirect_hosts=settings.redirect_hosts,
            clock=clock,
            entropy=effects.entropy,
            telemetry=telemetry,
        )
        self._paths = Paths(ROUTES)

    def __call__(self, event: Mapping[str, Any], _context: object) -> dict[str, Any]:
        """Answer one request; the event and the result have payload format 2.0."""
        request = None
        route: Route | None = None
        refuse: Callable[[Refused], Response] = refusal_response
        try:
            request = Request.from_event(event, self._clock.now() + ANSWER_SECONDS)
            if self._proxies is not None:
                request = request._replace(ip=self._proxies.visitor_address(request))
            routes, path_parameters = self._paths.find(request.path)
            route = routes.get(request.method)
            if request.method == "OPTIONS":
                response = self._cors.preflight(request, _allowed(routes))
            elif not routes:
                raise Refused("not_found")  # noqa: TRY301 -- one place turns rejections into responses
            elif route is None:
                raise Refused("method_not_allowed", allow=_allowed(routes))  # noqa: TRY301 -- the same
            else:
                refuse = route.refuse
                response = route.answer(
                    request._replace(path_parameters=path_parameters) if path_parameters else request,
                    self._intake,
                )
        except Refused as refused:
            response = refuse(refused)
        except Exception as error:  # noqa: BLE001 -- last resort: every response is a documented one
            self._telemetry.unforeseen("unexpected exception", error, code=type(error).__name__)
            response = refuse(Refused("internal_error"))
        if response.error is not None:
            self._report(response.error, request, route)
        if request is not None and request.method == "HEAD":
            response = response._replace(body="")
        return response.to_payload(self._cors.headers(request.headers.get("origin") if request else None))

    def _report(self, code: AnyCode, request: Request | None, route: Route | None) -> None:
        failed = ANSWERS[code].status >= 500
        if failed:
            self._telemetry.count("RequestsFailed")
        path = route.path if route is not None else "other"  # the requested path may contain personal data
        log = self._telemetry.warning if failed else self._telemetry.info
        log("refused", code=code, path=path, request=request.id if request else "")


def build(environment: Mapping[str, str]) -> Handler:
    """Build a function instance's handler: create the clients, read the secrets and the edge policy.

    Raises:
        SettingsError: settings are missing or invalid.
    """
    settings = IngestSettings.from_environment(environment)
    clock = SystemClock()
    telemetry = PowertoolsTelemetry.from_environment(environment, clock)
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or ""
    credentials = aws_client.credentials_from(environment)
    ca_bundle = aws_client.ca_bundle_from(environment)

    def client[Client: AwsClient](kind: type[Client], options: Mapping[str, Any]) -> Client:
        endpoint = aws_client.endpoint_of(kind, environment, region)
        return kind(endpoint, region, credentials, ca_bundle=ca_bundle, **options)

    effects = IngestEffects(
        kinesis=client(KinesisClient, stream.CLIENT_OPTIONS),
        sqs=client(SqsClient, overflow.CLIENT_OPTIONS),
        dynamodb=client(DynamoDbClient, budget.CLIENT_OPTIONS),
        secrets=client(SecretsManagerClient, keyring.CLIENT_OPTIONS),
        s3=client(S3Client, policy.CLIENT_OPTIONS),
        clock=clock,
        entropy=os.urandom,
        telemetry=telemetry,
        start=policy.in_background,
    )
    ingest = Ingest(settings, effects)
    wait = ingest.policies.begin()  # while the secrets are read
    ingest.keyring.refresh()
    wait(policy.WAIT_SECONDS)

    def handler(event: Mapping[str, Any], context: object) -> dict[str, Any]:
        with telemetry.invocation(context):
            return ingest(event, context)

    return handler


def __getattr__(name: str) -> Handler:
    """Build `handler` on first access."""
    if name != "handler":
        raise AttributeError(name)
    globals()[name] = handler = build(os.environ)
    return handler

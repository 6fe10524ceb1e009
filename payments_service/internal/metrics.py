"""`/metrics`: what this process has counted, and how long the queues are, in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from payments_service.context import Context
from payments_service.queues import Queues


async def metrics(request: Request) -> Response:
    """Also without the database: then it says just that, besides what was counted here."""
    context: Context = request.app.state.context
    queues: Queues = request.app.state.queues
    await queues.read()
    text = generate_latest(context.metrics.registry) + generate_latest(queues.registry)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

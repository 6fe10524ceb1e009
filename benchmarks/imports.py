"""`python -m benchmarks.imports`: what Stripe's SDK costs a process that has loaded all else already, as JSON."""

from __future__ import annotations

import json
import os
import sys
import time

from benchmarks.processes import memory
from payments_service.gateways import paynow  # noqa: F401 - with it, all that the SDK imports of others


def steps() -> dict[str, tuple[float, float]]:
    """Milliseconds and MB of each step."""
    if "stripe" in sys.modules:
        raise RuntimeError("the SDK was loaded already")
    begun, before = time.perf_counter(), memory(os.getpid())[0]
    import stripe

    loaded, after = time.perf_counter(), memory(os.getpid())[0]

    class Canned(stripe.HTTPClient):
        name = "canned"

        def request(self, *_: object) -> tuple[bytes, int, dict[str, str]]:
            return b'{"id": "cs_test_1", "object": "checkout.session"}', 200, {}

    client = stripe.StripeClient("sk_test_none", http_client=Canned())
    client.raw_request("get", "/v1/checkout/sessions/cs_test_1")
    ready, small = time.perf_counter(), memory(os.getpid())[0]
    # Services and the types of answers are loaded by the first typed call.
    client.v1.checkout.sessions.retrieve("cs_test_1")
    typed, large = time.perf_counter(), memory(os.getpid())[0]
    return {
        "import": ((loaded - begun) * 1000, after - before),
        "typed": ((typed - ready) * 1000, large - small),
    }


if __name__ == "__main__":
    print(json.dumps(steps()))

"""The big tenant's payments as CSV, by the service in a process of its own."""

from __future__ import annotations

import http.client
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from benchmarks import volume_rows
from benchmarks.processes import HOST, memory
from benchmarks.report import Figure
from benchmarks.stage import TENANT, TOKEN, Service, Stage

REST = 1.5  # seconds
FEW = 10_000
AIM_MB = 5.0  # more than this above a small download is not flat


@dataclass(frozen=True, slots=True)
class Download:
    rows: int
    megabytes: float
    seconds: float
    peak: float  # MB of resident memory


def measure(stage: Stage, url: str, payments: int) -> list[Figure]:
    """Ten thousand rows first, then all; the service's memory is looked at all the while."""
    rows = payments // volume_rows.BIG_SHARE
    moment = volume_rows.moment(url)
    since = moment - timedelta(days=730) * (min(FEW, rows) / rows)
    with stage.service(url, only="internal") as service:
        time.sleep(REST)
        idle, _ = memory(service.process.pid)
        few = _download(service, since, moment)
        many = _download(service, moment - timedelta(days=731), moment)
    if many.rows != rows:
        raise RuntimeError(f"the CSV had {many.rows} rows instead of {rows}")
    more = many.peak - few.peak
    return [
        Figure(f"CSV of {few.rows:,} rows: memory above idle", few.peak - idle, "MB", more=f"idle {idle:.0f} MB"),
        Figure(
            f"CSV of {many.rows:,} rows: memory above idle",
            many.peak - idle,
            "MB",
            more=f"{many.rows / many.seconds:,.0f} rows/s, {many.megabytes:,.0f} MB in {many.seconds:.0f} s",
            aim=f"<= {AIM_MB:.0f} MB above the small one's",
            met=more <= AIM_MB,
        ),
    ]


def _download(service: Service, since: datetime, until: datetime) -> Download:
    """Read it all as it comes, and throw it away."""
    query = urlencode({"created_from": since.isoformat(), "created_to": until.isoformat()})
    connection = http.client.HTTPConnection(HOST, service.internal, timeout=60)
    connection.request(
        "GET", f"/v1/clients/{TENANT}/payments.csv?{query}", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    begun = time.perf_counter()
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"the CSV was answered {answer.status}")
    lines, size, peak = 0, 0, 0.0
    while part := answer.read(1 << 16):
        lines, size = lines + part.count(b"\n"), size + len(part)
        peak = max(peak, memory(service.process.pid)[0])
    connection.close()
    return Download(lines - 1, size / 1e6, time.perf_counter() - begun, peak)

"""`python -m benchmarks`: measure everything, or the parts named, and print one table."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import callbacks, delivery, footprint, links, machine, page, recording, stripe, volume, walls, webhooks
from benchmarks.report import Section, as_json, show
from benchmarks.stage import Stage
from payments_service import log

PARTS: dict[str, Callable[[Stage], Section]] = {
    "callbacks": callbacks.measure,
    "recording": recording.measure,
    "links": links.measure,
    "walls": walls.measure,
    "footprint": footprint.measure,
    "delivery": delivery.measure,
    "page": page.measure,
    "webhooks": webhooks.measure,
    "stripe": stripe.measure,
    "volume": volume.measure,
}
# Takes long, and much room: only when it is named.
ON_REQUEST = {"volume"}


def main() -> int:
    parser = _parser()
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    with Path("/dev/null").open("w") as nowhere:
        # Lines are made and written as in production, only not kept.
        log.configure("info", "json", nowhere)
        return _run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; without: all but volume", metavar="part")
    parser.add_argument("--quick", action="store_true", help="shorter, so with more noise")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--payments", type=int, metavar="N", help="of volume: how many, a multiple of 10,000")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="of volume: keep its databases, or use those there")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    begun = time.monotonic()
    sections = []
    parts = arguments.parts or [part for part in PARTS if part not in ON_REQUEST]
    with Stage.open(quick=arguments.quick, keep=arguments.keep, payments=arguments.payments) as stage:
        facts = machine.facts(stage.folder, stage.version())
        machine.show(facts)
        for part in parts:
            since = time.monotonic()
            sections.append(PARTS[part](stage))
            show(sections[-1], time.monotonic() - since)
    print(f"\n{time.monotonic() - begun:.0f} s in all; load after: {os.getloadavg()[0]:.2f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(as_json(facts, sections), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m benchmarks`: measure everything, or the parts named, and print one table."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import callbacks, delivery, footprint, links, machine, page, recording, stripe, walls, webhooks
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
}


def main() -> int:
    parser = _parser()
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    with Path("/dev/null").open("w") as nowhere:
        # Lines are made and written as in production, only not kept.
        log.configure("info", "json", nowhere)
        return _run(arguments.parts or list(PARTS), quick=arguments.quick, target=arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; without: all", metavar="part")
    parser.add_argument("--quick", action="store_true", help="shorter, so with more noise")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    return parser


def _run(parts: Sequence[str], *, quick: bool, target: Path | None) -> int:
    begun = time.monotonic()
    sections = []
    with Stage.open(quick=quick) as stage:
        facts = machine.facts(stage.folder, stage.version())
        machine.show(facts)
        for part in parts:
            since = time.monotonic()
            sections.append(PARTS[part](stage))
            show(sections[-1], time.monotonic() - since)
    print(f"\n{time.monotonic() - begun:.0f} s in all; load after: {os.getloadavg()[0]:.2f}")
    if target is not None:
        target.write_text(json.dumps(as_json(facts, sections), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

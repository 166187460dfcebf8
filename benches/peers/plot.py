#!/usr/bin/env python3
"""Draws the comparison as an SVG: python3 benches/peers/plot.py all.json > docs/plots/peers.svg

Reads what `cargo bench --bench peers -- --json all.json` writes: for each run, the CPU time of each server for a delivered
message (median over rounds), as bars on a logarithmic axis, because the servers are apart by factors.
"""
import html
import json
import math
import sys

RUNS = {
    "fan-out-100": "1 → 100, each at its maximum",
    "fan-out-1000": "1 → 1,000, each at its maximum",
    "same-rate-100": "1 → 100, at faye-redis’ maximum rate",
    "same-rate-1000": "1 → 1,000, at faye-redis’ maximum rate",
    "pairs-16": "1,000 pairs, each at its maximum",
    "pairs-1": "1,000 pairs, one message under way each",
}
LEFT, WIDTH, BAR, GAP = 150, 520, 18, 34
LEAST, MOST = 0.2, 200.0
STYLE = """
svg { font: 13px system-ui, sans-serif; background: #fff; fill: #222; }
.weft { fill: #1c7c54; } .peer { fill: #9aa7b1; } .floor { fill: #d9a441; } .grid { stroke: #ddd; } .dim { fill: #667; }
@media (prefers-color-scheme: dark) { svg { background: #14181c; fill: #dde; } .grid { stroke: #333a40; } .dim { fill: #99a; } }
"""


def x_of(value):
    share = math.log(max(value, LEAST) / LEAST) / math.log(MOST / LEAST)
    return LEFT + WIDTH * min(share, 1.0)


def bars(document):
    for run in document["runs"]:
        if run["name"] not in RUNS:
            continue
        found = []
        for target in run["result"]["targets"]:
            server = (target["median"] or {}).get("server") or {}
            if server.get("cpu_us_per_delivery"):
                found.append((server["cpu_us_per_delivery"], target["name"]))
        yield RUNS[run["name"]], sorted(found)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        document = json.load(file)
    parts, y = [], 58
    for title, found in bars(document):
        parts.append(f'<text x="{LEFT}" y="{y}" font-weight="600">{html.escape(title)}</text>')
        y += 8
        for value, name in found:
            kind = "weft" if name.startswith("weft") else "floor" if name == "floor" else "peer"
            end = x_of(value)
            parts.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{html.escape(name)}</text>')
            parts.append(f'<rect class="{kind}" x="{LEFT}" y="{y + 1}" width="{end - LEFT:.1f}" height="{BAR - 3}" rx="2"/>')
            parts.append(f'<text x="{end + 6:.1f}" y="{y + 14}">{value:.3g}</text>')
            y += BAR
        y += GAP
    height = y + 6
    grid = []
    for value in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200):
        x = x_of(value)
        grid.append(f'<line class="grid" x1="{x:.1f}" y1="40" x2="{x:.1f}" y2="{height - 24}"/>')
        grid.append(f'<text class="dim" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{value:g}</text>')
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 60} {height}" role="img">')
    print(f"<style>{STYLE}</style>")
    print(f'<text x="16" y="24" font-size="15" font-weight="600">CPU time of the server, µs per delivered message '
          f'(logarithmic)</text><text class="dim" x="16" y="{height - 8}">{html.escape(document["date"][:10])}</text>')
    print("\n".join(grid + parts))
    print("</svg>")


main()

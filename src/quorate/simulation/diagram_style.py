"""The fixed parts of the diagram's page: style sheet and legend."""

from __future__ import annotations

from typing import Final

HEAD: Final = """<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width"/>
<title>TITLE</title>
<style>
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1c2024; --dim: #68707a; --rule: #c4cad1; --message: #1f5fbf; --band: #fdf0d0;
  --bad: #c62828; --role: #7b3fb5; --good: #1f7a3d; --fault: #8a5a00; --client: #00707a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16191d; --ink: #e4e7eb; --dim: #98a1ac; --rule: #4a525c; --message: #79aef5; --band: #3a3014;
    --bad: #ff7b72; --role: #c69cf4; --good: #67c587; --fault: #e9bd63; --client: #56c7d1;
  }
}
body { background: var(--paper); color: var(--ink); font: 14px/1.45 system-ui, sans-serif; margin: 24px; }
h1 { font-size: 20px; margin: 0 0 12px; color: var(--bad); }
h2 { font-size: 16px; margin: 24px 0 8px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; margin: 0 0 12px; }
dt { color: var(--dim); }
dd { margin: 0; overflow-wrap: anywhere; }
code { font: 13px ui-monospace, monospace; }
.legend { color: var(--dim); margin: 0 0 12px; max-width: 110ch; }
.wide { overflow-x: auto; }
svg { display: block; font: 11px system-ui, sans-serif; }
svg text { fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; }
svg .stamp { fill: var(--dim); text-anchor: end; font-variant-numeric: tabular-nums; }
svg .place { text-anchor: middle; font-weight: bold; }
svg .life { stroke: var(--rule); stroke-width: 2; }
svg .down { stroke-dasharray: 2 5; }
svg .flight, svg .early { stroke: var(--message); stroke-width: 1.5; fill: none; }
svg .early { stroke-dasharray: 3 3; }
svg .lost { stroke-dasharray: 5 3; }
svg .cross { stroke: var(--bad); stroke-width: 2; fill: none; }
svg .head { fill: var(--message); }
svg .band { fill: var(--band); stroke: var(--fault); stroke-width: 0.5; }
svg .mark { fill: var(--dim); stroke: none; }
svg .kind-fault .label { fill: var(--fault); stroke: none; }
svg .kind-send .mark, svg .kind-receive .mark { fill: var(--message); }
svg .kind-crash .mark { stroke: var(--bad); stroke-width: 3; fill: none; }
svg .kind-violation .mark { fill: var(--bad); }
svg .kind-crash .label, svg .kind-violation .label { fill: var(--bad); }
svg .kind-role .mark { fill: var(--role); }
svg .kind-role .label { fill: var(--role); }
svg .kind-start .mark, svg .kind-commit .mark { fill: var(--good); }
svg .kind-invoke .mark, svg .kind-return .mark { fill: var(--client); }
svg .here .label { font-weight: bold; }
svg .ring { fill: none; stroke: var(--bad); stroke-width: 2; }
svg .apart .label, svg .apart .mark, svg .apart .flight, svg .apart .early, svg .apart .cross { opacity: 0.4; }
svg .apart .head { opacity: 0.4; }
svg .kind-fault .label { opacity: 1; }
table { border-collapse: collapse; font-size: 12px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 2px 12px 2px 0; border-bottom: 1px solid var(--rule); }
td { overflow-wrap: anywhere; min-width: 3ch; max-width: 60ch; }
tr.apart td { color: var(--dim); }
tr.here td { color: var(--bad); font-weight: bold; }
tr:target td, svg .event:target .label { text-decoration: underline; }
a { color: inherit; }
</style>
</head>
<body>"""

LEGEND: Final = """<p class="legend">Time runs downward, one event per row, not to scale. Round marks send and receive
messages, square marks are other events; an arrow leads from a sending to the receipt. A dashed arrow that ends in a
cross was never received; a dotted one was sent before the first row. An X is a crash, and the line is dotted while the
machine is down. A band across all columns is an injected fault. The ring marks the violation; strong colours are its
causal past, and what is pale cannot have influenced it. Hold the mouse over an event or an arrow for its clocks and its
whole text.</p>"""

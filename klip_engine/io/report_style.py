"""The look of the report: dark on a screen, dark ink on white paper."""

STYLE = """
:root { color-scheme: dark; --page: #14171b; --panel: #1c2026; --line: #333a44; --ink: #e4e7eb;
  --soft: #a3adb9;
  --curve: #8ec5e8; --accent: #ffb020; --warn: #f0a58a; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px 32px 48px; max-width: 1200px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 22px; font-weight: 600; margin: 0 0 12px; }
h2 { font-size: 17px; font-weight: 600; margin: 32px 0 10px; }
h3 { font-size: 15px; font-weight: 600; margin: 0; }
p { margin: 0 0 8px; max-width: 92ch; }
a { color: var(--accent); }
.notice { max-width: none; padding: 10px 14px; border: 1px solid var(--warn); border-left-width: 5px;
  border-radius: 4px; color: var(--warn); font-weight: 600; }
.summary { margin-top: 20px; }
.lead { font-size: 19px; line-height: 1.4; margin-bottom: 12px; }
.small, figcaption, footer { color: var(--soft); font-size: 13px; }
.notices ul { margin: 0; padding-left: 20px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 16px 5px 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
th:first-child, td:first-child { text-align: left; }
.findings { table-layout: fixed; width: 100%; min-width: 620px; max-width: 760px; }
.findings th:first-child { width: 56px; }
.findings td { padding-right: 0; } .findings th { padding-right: 0; }
section > details { margin-top: 10px; }
.wide + .small, details + .small { margin-top: 8px; }
.facts th, .facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
.curve-plot { display: block; width: 100%; height: auto; background: var(--panel); border-radius: 6px; }
.axis { stroke: var(--soft); stroke-width: 1; }
.grid { stroke: var(--line); stroke-width: 1; }
.label { fill: var(--soft); font-size: 12px; }
.curve { fill: none; stroke: var(--curve); stroke-width: 1.8; stroke-linejoin: round; }
.dot { fill: var(--curve); }
.threshold { stroke: var(--accent); stroke-width: 1.4; stroke-dasharray: 6 4; }
.threshold-label { fill: var(--accent); font-size: 12px; }
.mark { fill: none; stroke: var(--accent); stroke-width: 2; }
.mark-label { fill: var(--accent); font-size: 13px; font-weight: 600; }
.frame { stroke: var(--line); stroke-width: 1; }
.legend { display: flex; gap: 28px; align-items: center; justify-content: space-between; }
.colour-bar { width: 340px; flex: none; }
.swatch { display: inline-block; width: 12px; height: 12px; border: 2px solid; border-radius: 3px;
  vertical-align: -2px; }
article { margin: 16px 0 0; padding: 14px 16px; background: var(--panel); border-radius: 6px; }
article p { margin: 2px 0 10px; }
.row { display: grid; grid-template-columns: repeat(4, 1fr); gap: 10px; }
figure { margin: 0; }
figcaption { margin-top: 4px; text-align: center; }
.picture { position: relative; background: #000; line-height: 0; }
.picture img { width: 100%; height: auto; }
.side, .scale { position: absolute; font-size: 12px; line-height: 1; color: #d9dee4;
  text-shadow: 0 0 3px #000, 0 0 3px #000, 0 0 5px #000, 0 0 5px #000; }
.right { left: 5px; top: calc(50% - 6px); }
.left { right: 5px; top: calc(50% - 6px); }
.front { top: 5px; left: calc(50% - 4px); }
.back { bottom: 5px; left: calc(50% - 4px); }
.scale { left: 6px; bottom: 6px; height: 2px; background: #d9dee4; box-shadow: 0 0 0 1px #000; }
.scale b { position: absolute; left: -1px; bottom: 5px; padding: 2px 4px; border-radius: 3px; font-weight: 400;
  background: rgb(0 0 0 / 75%); white-space: nowrap; }
.wide { overflow-x: auto; }
details { margin-top: 32px; }
details h3 { margin: 16px 0 4px; }
summary { cursor: pointer; font-weight: 600; }
footer { margin-top: 32px; border-top: 1px solid var(--line); padding-top: 10px; }
@media (max-width: 720px) { body { padding: 16px; } .row { grid-template-columns: repeat(2, 1fr); }
  .legend { display: block; } .curve-plot { min-width: 640px; } .colour-bar { max-width: 100%; } }
@media print { :root { color-scheme: light; --page: #fff; --panel: #fff; --line: #c9ced6; --ink: #111;
    --soft: #444; --curve: #1f5f8b; --accent: #a85f00; --warn: #9c2f10; }
  body { max-width: none; padding: 0; font-size: 11pt; }
  article, tr { break-inside: avoid; } article { border: 1px solid var(--line); }
  .picture, .colour-bar, .swatch { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""

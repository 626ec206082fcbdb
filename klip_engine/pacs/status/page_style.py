"""The look of the status page: light or dark as the reader's system is, one column on a phone."""

STYLE = """
:root { color-scheme: light dark; --page: #f5f6f8; --panel: #ffffff; --line: #d9dde3; --ink: #1b2026;
  --soft: #59636f; --accent: #1663a8; --well: #1d7a46; --attention: #946200; --failing: #b3261e;
  --bar: #8fb7dc; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --panel: #1c2026; --line: #333a44;
  --ink: #e4e7eb; --soft: #a3adb9; --accent: #8ec5e8; --well: #6fcf97; --attention: #ffb020;
  --failing: #ff8a80; --bar: #3f6d94; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 20px 24px 40px; max-width: 1120px; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 21px; font-weight: 600; margin: 0; }
h2 { font-size: 16px; font-weight: 600; margin: 0 0 8px; }
p { margin: 0 0 6px; }
a { color: var(--accent); }
header { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: baseline; margin-bottom: 12px; }
header .when { margin-left: auto; }
.soft, .when, footer { color: var(--soft); font-size: 13px; }
.notice { border: 1px solid var(--attention); border-radius: 6px; padding: 7px 12px; color: var(--attention);
  font-weight: 600; font-size: 14px; margin-bottom: 12px; }
.verdict { border-left: 6px solid var(--well); }
.verdict.attention { border-color: var(--attention); }
.verdict.failing { border-color: var(--failing); }
.verdict strong { font-size: 17px; }
.verdict ul { margin: 4px 0 0; padding-left: 20px; }
section { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 13px 16px;
  margin-bottom: 12px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(128px, 1fr)); gap: 12px;
  margin-bottom: 12px; }
.tile { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.tile b { display: block; font-size: 25px; font-weight: 600; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile.bad b { color: var(--failing); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 12px; }
.pair section { min-width: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-top: 1px solid var(--line); vertical-align: top; }
thead th { border-top: 0; color: var(--soft); font-weight: 500; font-size: 13px; white-space: nowrap; }
td:last-child, th:last-child { padding-right: 0; }
td form { text-align: right; }
.name { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px; white-space: nowrap; }
.time, .number { white-space: nowrap; }
.well { color: var(--well); } .attention { color: var(--attention); } .failing { color: var(--failing); }
.verdict.well, .verdict.attention, .verdict.failing { color: var(--ink); }
progress { width: 100%; height: 12px; accent-color: var(--accent); }
svg { display: block; width: 100%; height: 56px; }
svg rect { fill: var(--bar); } svg line { stroke: var(--line); }
form { margin: 0; }
button { font: inherit; font-size: 14px; padding: 4px 12px; border: 1px solid var(--accent); border-radius: 6px;
  background: transparent; color: var(--accent); cursor: pointer; white-space: nowrap; }
button:hover { background: var(--accent); color: var(--panel); }
button:focus-visible, a:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.title { display: flex; flex-wrap: wrap; gap: 8px; justify-content: space-between; align-items: center;
  margin-bottom: 8px; }
.title h2 { margin: 0; }
@media (max-width: 720px) {
  body { padding: 12px 12px 28px; }
  header .when { margin-left: 0; }
  .pair { grid-template-columns: minmax(0, 1fr); gap: 0; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px; }
  .tile:last-child:nth-child(odd) { grid-column: span 2; }
  table.wide thead { display: none; }
  table.wide tr { display: block; border-top: 1px solid var(--line); padding: 7px 0; }
  table.wide tr:first-child { border-top: 0; }
  table.wide td { display: grid; grid-template-columns: 92px minmax(0, 1fr); border: 0; padding: 1px 0; }
  table.wide td::before { content: attr(data-label); color: var(--soft); font-size: 13px; }
  table.wide td:empty { display: none; }
  td form { text-align: left; }
}
"""

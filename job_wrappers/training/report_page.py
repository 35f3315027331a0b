"""The report page's frame: its order, and how it looks in light, in the dark, on paper and on a narrow screen."""

from __future__ import annotations

from string import Template

from slurm_power.cli.report_style import DARK_PALETTE, LIGHT_PALETTE

PAGE = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Training $title</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<style>
 :root { LIGHT }
 @media (prefers-color-scheme: dark) { :root { DARK } }
 @media print { :root { LIGHT } }
 body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 80rem; padding: 0 1rem;
   color: var(--ink); background: var(--paper); overflow-wrap: break-word; }
 h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin: 1.8rem 0 .4rem; }
 h3 { font-size: 1rem; margin: .8rem 0 .2rem; }
 .about, figcaption, footer { color: var(--quiet); } figcaption, footer { font-size: 13px; }
 .curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)); gap: 1rem; }
 figure { margin: .5rem 0; min-width: 0; } svg { display: block; width: 100%; height: auto; }
 .wide > div { overflow-x: auto; } .wide svg { min-width: 44rem; }
 .table { overflow-x: auto; } table { border-collapse: collapse; margin: .5rem 0; }
 th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
 th { font-weight: 600; } td { font-variant-numeric: tabular-nums; min-width: 5rem; }
 pre { font-size: 13px; line-height: 1.35; overflow-x: auto; overflow-wrap: normal; } summary { cursor: pointer; }
 @media print { body { margin: 0; max-width: none; font-size: 11px; } figcaption, footer, pre { font-size: 10px; }
   figure, tr { break-inside: avoid; }
   h2, h3 { break-after: avoid; } .curves { grid-template-columns: 1fr 1fr; } .wide svg { min-width: 0; } }
</style></head><body>
<h1>Training $title</h1>
<p class="about">$about</p>
$run
<h2>Curves</h2><div class="curves">$curves</div>
<h2>One pipeline step</h2>$timeline
<h2>Attempts</h2>$attempts
<p>A bubble is the share of the ranks' time in which they do not compute. By formula: equal stages, free
communication. Replayed: the schedule played through with each stage's measured busy time, so imbalance shows too.
Measured: all waiting, communication and overhead. Its share of the energy takes waiting ranks to draw what they drew
before the first step.</p>
<h2>Micro-batch</h2>$changes
<h2>Bytes handed to collectives and sends</h2>
<p>Of one step, all ranks together, without an attempt's first step.</p>$bytes
<h2>Precision of every operation</h2>$precision
<h2>What happened</h2>$events
<footer><p>Written $written by slurm-power-train. Times are those of the machine that wrote this page.</p></footer>
</body></html>
""".replace("LIGHT", LIGHT_PALETTE).replace("DARK", DARK_PALETTE)
)

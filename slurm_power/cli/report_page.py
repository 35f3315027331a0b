"""The frame of the reports' pages: how they look in light, in the dark, on paper and on a narrow screen."""

from __future__ import annotations

import html
from collections.abc import Iterable
from string import Template

from slurm_power.cli.report_style import DARK_PALETTE, LIGHT_PALETTE
from slurm_power.cli.words import printable

PAGE = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
 :root { LIGHT }
 @media (prefers-color-scheme: dark) { :root { DARK } }
 @media print { :root { LIGHT } }
 * { box-sizing: border-box; }
 body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 78rem; padding: 0 1rem;
   color: var(--ink); background: var(--paper); overflow-wrap: break-word; }
 h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 1.6rem 0 .4rem; }
 h3 { font-size: 1rem; margin: 0 0 .3rem; }
 header { display: flex; flex-wrap: wrap; gap: .4rem 1rem; align-items: center; }
 .about, footer, .note { color: var(--quiet); } footer, .note { font-size: 13px; }
 .cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 14rem), 1fr)); gap: .8rem;
   margin: 1rem 0; }
 .card { border: 1px solid var(--line); border-left-width: 5px; border-radius: 4px; padding: .7rem .9rem; }
 .card p { margin: .3rem 0 0; }
 .pass { border-left-color: var(--good); } .warn { border-left-color: var(--warn); }
 .fail { border-left-color: var(--bad); }
 .word { font-weight: 600; white-space: nowrap; }
 .word.pass { color: var(--good); } .word.warn { color: var(--warn); } .word.fail { color: var(--bad); }
 .word.unknown { color: var(--quiet); }
 .curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: .5rem 1rem; }
 figure { margin: 0; min-width: 0; overflow-x: auto; }
 svg { display: block; width: 100%; min-width: 20rem; max-width: 48rem; height: auto; }
 .table { overflow-x: auto; } table { border-collapse: collapse; margin: .4rem 0; min-width: min(100%, 34rem); }
 th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line);
   vertical-align: top; font-variant-numeric: tabular-nums; min-width: 4.5rem; }
 th { font-weight: 600; } .number { text-align: right; white-space: nowrap; }
 code { font-size: 12.5px; overflow-wrap: anywhere; }
 @media print { body { margin: 0; max-width: none; font-size: 11px; } footer, .note { font-size: 10px; }
   svg { min-width: 0; }
   figure, tr, .card { break-inside: avoid; } h2 { break-after: avoid; }
   .curves { grid-template-columns: 1fr 1fr; } .cards { grid-template-columns: 1fr 1fr; } }
</style></head><body>
$body
</body></html>
""".replace("LIGHT", LIGHT_PALETTE).replace("DARK", DARK_PALETTE)
)


def page(title: str, body: str) -> str:
    """`body` is HTML already; `title` is text."""
    return PAGE.substitute(title=html.escape(title), body=body)


def table(headings: Iterable[str], rows: Iterable[Iterable[str]], *, numbers_from: int = 1) -> str:
    """Of texts, whoever wrote them. Cells from `numbers_from` on stand to the right."""

    def cells(tag: str, row: Iterable[str]) -> str:
        return "".join(
            f"<{tag}{' class=number' if place >= numbers_from else ''}>{html.escape(printable(cell))}</{tag}>"
            for place, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="table"><table><thead><tr>{cells("th", headings)}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def figure(svg: str) -> str:
    return f"<figure>{svg}</figure>"

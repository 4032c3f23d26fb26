"""How the published proof looks: plain text, and one self-contained page without scripts and without foreign addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from storage.proof_report import ProofReport

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Proof of data: {{ r.connection or 'all connections' }}</title>
<style>
:root{--ink:#16202a;--soft:#5b6875;--line:#dde3e9;--paper:#fff;--stored:#1b7f5c;--closed:#c5ced8;--explained:#7fb8d6;--waiting:#e0a030;--open:#c8452f;--none:#f0f2f5}
@media (prefers-color-scheme:dark){:root{--ink:#e8edf2;--soft:#9aa8b5;--line:#2c3743;--paper:#12181f;--closed:#46525f;--none:#1c242d;--stored:#34a97e;--waiting:#d9a441;--open:#e8674f}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:2rem 1.25rem 4rem}h1{font-size:1.6rem;margin:0}h2{font-size:1.1rem;margin:2.2rem 0 .6rem}
p.sub{color:var(--soft);margin:.2rem 0 1.4rem}.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:1px;background:var(--line);border:1px solid var(--line)}
.figures div{background:var(--paper);padding:.8rem 1rem}.figures b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}.figures span{color:var(--soft);font-size:.85rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.88rem}th,td{text-align:left;padding:.35rem .9rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--soft);font-weight:500}td.n,th.n{text-align:right}td{white-space:nowrap}td:has(.old),td:has(code){white-space:normal}td.wide{min-width:14rem;white-space:normal}code{font:.82em ui-monospace,monospace;overflow-wrap:anywhere}svg{display:block;width:100%;height:20px;background:var(--none)}.ends{display:flex;justify-content:space-between;color:var(--soft);font-size:.75rem}
.stored{fill:var(--stored)}.closed{fill:var(--closed)}.explained{fill:var(--explained)}.waiting{fill:var(--waiting)}.open{fill:var(--open)}.none{fill:var(--none)}
.key{display:flex;flex-wrap:wrap;gap:1rem;color:var(--soft);font-size:.85rem;margin:.4rem 0 .8rem}.key svg{display:inline-block;width:12px;background:none;height:12px;vertical-align:-1px;margin-right:.35rem}
.bad{color:var(--open);font-weight:600}.old{color:var(--soft);text-decoration:line-through}footer{color:var(--soft);font-size:.85rem;margin-top:2.5rem}
</style></head><body><main>
<h1>Proof of data: {{ r.connection or 'all connections' }}</h1>
<p class="sub">Candles that open from {{ r.start }} up to {{ r.end }}. Made {{ r.made_at }} from the store's contents.</p>
<div class="figures">
<div><b>{{ percent(r.totals.completeness) }}</b><span>of open-market slots stored</span></div>
<div><b>{{ percent(r.totals.explained_share) }}</b><span>of all slots stored or explained</span></div>
<div><b{% if r.totals.unexplained %} class="bad"{% endif %}>{{ count(r.totals.unexplained) }}</b><span>slots unexplained</span></div>
<div><b>{{ count(r.totals.stored) }}</b><span>candles of {{ count(r.totals.expected) }} slots</span></div>
<div><b{% if r.totals.behind %} class="bad"{% endif %}>{{ count(r.totals.behind) }}</b><span>candles behind the market</span></div>
<div><b>{{ count(r.totals.revisions) }}</b><span>revisions by providers</span></div>
<div><b>{{ duration(r.repairs.median_seconds) }}</b><span>median time to repair</span></div>
</div>
<h2>Series</h2>
<div class="key">{% for name, text in key %}<span><svg viewBox="0 0 1 1" aria-hidden="true"><rect class="{{ name }}" width="1" height="1"/></svg>{{ text }}</span>{% endfor %}</div>
<div class="scroll"><table><thead><tr><th>series</th><th style="width:34%">the period</th><th class="n">stored</th><th class="n">expected</th><th class="n">complete</th><th class="n">unexplained</th><th class="n">behind</th><th class="n">revised</th></tr></thead><tbody>
{% for s in r.series %}<tr><td>{{ s.connection }} {{ s.symbol }} {{ s.timeframe }}</td><td><svg viewBox="0 0 {{ s.strip|length }} 10" preserveAspectRatio="none" role="img" aria-label="{{ s.stored }} of {{ s.expected }} slots stored">{% for name, at, top, width, height in boxes(s.strip) %}<rect class="{{ name }}" x="{{ at }}" y="{{ top }}" width="{{ width }}" height="{{ height }}"/>{% endfor %}</svg><span class="ends"><span>{{ r.start[:10] }}</span><span>{{ r.end[:10] }}</span></span></td>
<td class="n">{{ count(s.stored) }}</td><td class="n">{{ count(s.expected) }}</td><td class="n">{{ percent(s.completeness) }}</td><td class="n{% if s.unexplained %} bad{% endif %}">{{ count(s.unexplained) }}</td><td class="n{% if s.behind %} bad{% endif %}">{{ count(s.behind) }}</td><td class="n">{{ count(s.revisions) }}</td></tr>{% endfor %}
</tbody></table></div>
<h2>Why slots are empty</h2>
{% if r.totals.causes %}<div class="scroll"><table><thead><tr><th>cause</th><th>meaning</th><th class="n">slots</th></tr></thead><tbody>
{% for cause, slots in r.totals.causes.items() %}<tr><td>{{ cause }}</td><td>{{ causes[cause] }}{% if cause == "unknown" and r.totals.withheld %}; {{ count(r.totals.withheld) }} of them withheld: the broker's clock is in doubt{% endif %}</td><td class="n">{{ count(slots) }}</td></tr>{% endfor %}</tbody></table></div>{% else %}<p>No slot is empty.</p>{% endif %}
{% if r.gaps %}<h2>Gaps in open time, longest first</h2><div class="scroll"><table><thead><tr><th>series</th><th>from</th><th>to</th><th class="n">slots</th><th>why</th><th class="n">attempts</th><th>next try</th></tr></thead><tbody>
{% for g in r.gaps[:40] %}<tr><td>{{ g.series }}</td><td>{{ g.start }}</td><td>{{ g.end }}</td><td class="n">{{ count(g.slots) }}</td><td class="wide">{{ g.why }} <code>{{ g.cause }}</code></td><td class="n">{{ g.attempts }}</td><td>{{ (g.next_try[:19] ~ 'Z') if g.next_try else 'final' }}</td></tr>{% endfor %}</tbody></table></div>
{% if r.gaps|length > 40 %}<p class="sub">{{ r.gaps|length - 40 }} more are in the JSON report.</p>{% endif %}{% endif %}
<h2>Revisions</h2>
{% if r.revisions %}<div class="scroll"><table><thead><tr><th>series</th><th>candle</th><th>seen</th><th>what changed</th></tr></thead><tbody>
{% for v in r.revisions[:40] %}<tr><td>{{ v.series }}</td><td>{{ v.ts }}</td><td>{{ v.known_at }}</td><td>{% for name in v.new if v.old[name] != v.new[name] %}{{ name }} <span class="old">{{ v.old[name] }}</span> {{ v.new[name] }}{{ '; ' if not loop.last }}{% endfor %}</td></tr>{% endfor %}</tbody></table></div>
{% if r.totals.revisions > 40 %}<p class="sub">{{ count(r.totals.revisions - 40) }} more: candlelake revisions.</p>{% endif %}{% else %}<p>No provider has changed a stored candle of the period.</p>{% endif %}
<h2>Repairs</h2>
{% if r.repairs.ranges %}<p>{{ count(r.repairs.ranges) }} booked ranges were filled later: half of them within {{ duration(r.repairs.median_seconds) }}, nine of ten within {{ duration(r.repairs.p90_seconds) }}, the longest took {{ duration(r.repairs.longest_seconds) }}.</p>{% else %}<p>Nothing had to be repaired.</p>{% endif %}
<h2>Clocks of the providers</h2>
{% if r.clocks %}<div class="scroll"><table><thead><tr><th>connection</th><th>what</th><th>rules</th><th>seen</th><th>by what</th></tr></thead><tbody>
{% for c in r.clocks %}<tr><td>{{ c.connection }}</td><td{% if c.kind == 'contradicted' %} class="bad"{% endif %}>{{ c.kind }}</td><td class="wide">{{ c.rules_in_words }}</td><td>{{ c.seen_at[:19] }}Z</td><td class="wide">{% if c.offset_minutes is not none %}measured {{ offset_in_words(c.offset_minutes) }}; {% endif %}{{ c.evidence_in_words }}{% if 'strength' in c.evidence %} ({{ c.evidence.strength }}){% endif %}</td></tr>{% endfor %}</tbody></table></div>{% else %}<p>All times come as UTC: no broker's clock had to be learned.</p>{% endif %}
{% if r.retentions %}<h2>Removed by retention</h2><div class="scroll"><table><thead><tr><th>series</th><th>before</th><th>applied</th><th class="n">candles</th></tr></thead><tbody>{% for t in r.retentions %}<tr><td>{{ t.series }}</td><td>{{ t.before }}</td><td>{{ t.applied_at }}</td><td class="n">{{ count(t.rows) }}</td></tr>{% endfor %}</tbody></table></div>{% endif %}
<h2>Digests</h2>
<p>SHA-256 over the rows themselves; another home with the same candles has the same ones. Whole report: <code>{{ r.digest }}</code></p>
<div class="scroll"><table><thead><tr><th>series</th><th class="n">candles</th><th>digest</th></tr></thead><tbody>{% for s in r.series %}<tr><td>{{ s.connection }} {{ s.symbol }} {{ s.timeframe }}</td><td class="n">{{ count(s.stored) }}</td><td><code>{{ s.rows_digest }}</code></td></tr>{% endfor %}</tbody></table></div>
<footer>Candlelake: every expected candle is present or has a recorded cause. Nothing on this page is estimated or filled in.</footer>
</main></body></html>
"""


def as_html(report: ProofReport) -> str:
    """Return the report as one page; everything that came from outside is escaped."""
    from jinja2 import Environment, StrictUndefined

    from core.clock_words import offset_in_words
    from storage.gap_words import MEANINGS
    from storage.proof_strip import LEGEND, boxes

    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(_PAGE)
    return page.render(
        r=report.as_dict(), causes=MEANINGS, key=[*LEGEND.items(), ("none", "outside the series")], percent=percent, count=count,
        duration=duration, boxes=boxes, offset_in_words=offset_in_words) + "\n"


def as_text(report: ProofReport) -> str:
    """Return the report as lines for a terminal or a mail."""
    from storage.gap_words import MEANINGS

    totals = report.totals
    lines = [
        f"Proof of data: {report.connection or 'all connections'}", f"{report.start} to {report.end}, made {report.made_at}", "",
        f"completeness       {percent(totals['completeness'])} of open-market slots stored",
        f"explained          {percent(totals['explained_share'])} of all slots stored or explained",
        f"unexplained        {count(totals['unexplained'])}", f"behind             {count(totals['behind'])} candles that should have come by now",
        f"candles            {count(totals['stored'])} of {count(totals['expected'])} slots",
        f"revisions          {count(totals['revisions'])}",
        "repairs            " + _repairs(report),
        f"digest             {report.digest}", "", "Causes of empty slots"]
    lines += [f"  {cause:<16} {count(slots):>12}  {MEANINGS[cause]}" for cause, slots in totals["causes"].items()] or ["  none"]
    if totals["withheld"]:
        lines.append(f"  of the unknown {count(totals['withheld'])} are withheld: the broker's clock is in doubt there")
    lines += ["", "Series"]
    lines += [f"  {item.connection} {item.symbol} {item.timeframe}: {count(item.stored)} of {count(item.expected)} stored,"
              f" {percent(item.completeness)} complete, {item.unexplained} unexplained, {item.revisions} revised, {item.rows_digest}"
              for item in report.series] or ["  none"]
    if report.clocks:
        lines += ["", "Clocks"]
        lines += [f"  {item['connection']}: {item['kind']} {item['seen_at'][:19]}Z: {item['rules_in_words']}"
                  + (f" ({item['evidence_in_words']})" if item["evidence_in_words"] else "") for item in report.clocks]
    return "\n".join(lines) + "\n"


def _repairs(report: ProofReport) -> str:
    found = report.repairs
    if not found["ranges"]:
        return "none needed"
    return f"{count(found['ranges'])}, median {duration(found['median_seconds'])}, nine of ten within {duration(found['p90_seconds'])}"


def percent(share: float | None) -> str:
    """Return a share as percent that never rounds up to 100."""
    if share is None:
        return "n/a"
    return "100 %" if share >= 1 else f"{int(share * 100_000) / 1000:.3f} %"


def count(number: int) -> str:
    """Return a number with its thousands set apart."""
    return f"{number:,}"


def duration(seconds: float | None) -> str:
    """Return a duration in the unit that a person would use."""
    if seconds is None:
        return "none"
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"

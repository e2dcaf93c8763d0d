// What was: graphs of the last hour to the last 60 days, as the server has kept them; in figures, too.
import { html, useEffect, useState } from './lib.js';
import { get } from './api.js';
import { Chart } from './chart.js';
import { bytes, count, latency } from './format.js';
import { Card, Loaded, Table, useData } from './ui.js';

const RANGES = [['1 h', 'hour', 3600], ['1 day', 'day', 86400], ['1 week', 'week', 604800], ['60 days', '60 days', 5184000]];
const rate = (value) => `${bytes(value)}/s`;
const share = (value) => `${(value * 100).toFixed(0)} %`;

// Title, how values are shown, the least that the scale goes to, and lines: column, label, colour, dashed.
const WORK = [
  ['Throughput', rate, 1, [['read_bytes', 'Read', '--read'], ['write_bytes', 'Written', '--write']]],
  ['Commands a second', count, 1, [['reads', 'Reads', '--read'], ['writes', 'Writes', '--write']]],
  ['Latency', latency, 1e-4, [['read_p99', 'Reads, 99 %', '--read'], ['read_p50', 'half', '--read', true], ['write_p99', 'Writes, 99 %', '--write'], ['write_p50', 'half', '--write', true]]],
  ['Commands in progress', count, 1, [['depth', 'In progress', '--read']]],
  ['Reads that caches had', share, 1, [['cache_hits', 'Hits', '--read']]],
];
const SPACE = [['Space', bytes, 1, [['used', 'Used', '--read'], ['size', 'There is', '--write', true]]], ['Promised to volumes', bytes, 1, [['provisioned', 'Promised', '--write']]]];

/** Where windows are missing, or nothing was measured, lines have gaps. */
function withGaps(times, values, step) {
  const found = [[], ...values.map(() => [])];
  times.forEach((time, at) => {
    if (at && time - times[at - 1] > 1.5 * step) { found[0].push(times[at - 1] + step); values.forEach((_, line) => found[line + 1].push(null)); }
    found[0].push(time);
    values.forEach((column, line) => found[line + 1].push(column[at]));
  });
  return found;
}

function figures(values) {
  const known = values.filter((value) => value !== null);
  return known.length ? [known.at(-1), known.reduce((sum, each) => sum + each, 0) / known.length, Math.max(...known)] : null;
}

function Graphs({ found, graphs, name }) {
  const [{ times, values }] = found.series;
  const there = graphs.map(([title, show, least, lines]) => [title, show, least, lines.filter(([column]) => figures(values[column]))]).filter(([, , , lines]) => lines.length);
  if (!there.length) return html`<p class="note">Nothing was measured in that time yet.</p>`;
  const rows = there.flatMap(([title, show, , lines]) => lines.map(([column, label]) => ({ key: column, title, label, told: figures(values[column]).map(show) })));
  return html`<div class="graphs">${there.map(([title, show, least, lines]) => {
    const [at, ...columns] = withGaps(times, lines.map(([column]) => values[column]), found.resolution);
    return html`<div key=${title}><h3>${title}</h3><${Chart} label=${`${title}, ${name}`} times=${at} span=${[found.from, found.to]} show=${show} least=${least} series=${lines.map(([, label, colour, dashed], line) => [label, colour, columns[line], dashed])} key=${`${title} ${lines.length}`} /></div>`;
  })}</div>
  <details class="figures"><summary>In figures</summary><${Table} label=${`Figures, ${name}`} rows=${rows} keyOf=${(row) => row.key} columns=${[['What', (row) => `${row.title}: ${row.label}`], ['Last', (row) => row.told[0], { number: true }], ['Mean', (row) => row.told[1], { number: true }], ['Most', (row) => row.told[2], { number: true }]]} /></details>`;
}

/** `series`: total, volume:NAME or pool:NAME. */
export function History({ series }) {
  const [range, setRange] = useState(RANGES[0]);
  const [, words, seconds] = range;
  const found = useData(() => get(`/history?series=${encodeURIComponent(series)}&from=${-seconds}`).catch((error) => { if (error.status === 404) return { series: [] }; throw error; }), [series, seconds], []);
  useEffect(() => { const timer = setInterval(found.reload, seconds > 3600 ? 60000 : 10000); return () => clearInterval(timer); }, [found.reload]);
  const choice = html`<div class="row" role="group" aria-label="How far back">${RANGES.map((each) => html`<button type="button" class="small" key=${each[0]} aria-pressed=${each[0] === range[0] ? 'true' : 'false'} onClick=${() => setRange(each)}>${each[0]}</button>`)}</div>`;
  return html`<${Card} title="History" actions=${choice}><${Loaded} of=${found}>${(data) => (data.series.length ? html`<${Graphs} found=${data} name=${`the last ${words}`} graphs=${series.startsWith('pool:') ? SPACE : WORK} />` : html`<p class="note">The history begins with what is measured from now on.</p>`)}</${Loaded}></${Card}>`;
}

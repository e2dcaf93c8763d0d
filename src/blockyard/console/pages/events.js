// What has happened, and what is under way.
import { html, useState } from '../lib.js';
import { get, isOperator } from '../api.js';
import { ago, percent, when } from '../format.js';
import { useLive } from '../live.js';
import { Card, Head, Loaded, Meter, Pill, Select, Table, useData } from '../ui.js';
import { amount, JobButtons } from './copies.js';

export function Events() {
  const [severity, set] = useState('all');
  const [words, setWords] = useState('');
  const events = useData(() => get('/events?last=500'), [], ['event']);
  return html`<${Head} title="Events" sub="What has happened that somebody may want to look up." /><${Card}><div class="inline">
    <${Select} label="Severity" value=${severity} onInput=${set} options=${[['all', 'All'], ['warning', 'Warnings and errors'], ['error', 'Errors']]} />
    <div class="field"><label for="words">Words</label><input id="words" type="search" value=${words} onInput=${(event) => setWords(event.currentTarget.value.toLowerCase())} /></div></div>
    <${Loaded} of=${events}>${(list) => html`<${Table} label="Events" keyOf=${(row) => row.id} rows=${[...list].reverse().filter((row) => (severity === 'all' || row.severity === severity || (severity === 'warning' && row.severity === 'error')) && (!words || JSON.stringify(row).toLowerCase().includes(words)))} columns=${[
      ['', (row) => html`<${Pill} state=${row.severity} />`], ['What', (row) => html`<span class="wrap">${row.text}</span>`], ['Who', (row) => html`<span class="wrap">${row.who || '–'}</span>`, { extra: true }], ['Kind', (row) => html`<code>${row.what}</code>`, { extra: true }],
      ['When', (row) => html`<time datetime=${row.time} title=${when(row.time)}>${ago(row.time)}</time>`]]} empty="Nothing that fits." />`}</${Loaded}></${Card}>`;
}



export function Jobs({ me }) {
  const { jobs } = useLive('jobs');
  return html`<${Head} title="Jobs" sub="Work that takes its time." /><${Card}><${Table} label="Jobs" rows=${[...jobs].reverse()} keyOf=${(row) => row.id} columns=${[
    ['Job', (row) => html`${row.kind} <span class="note wrap">${row.volume ? html`<a href=${`#/volumes/${encodeURIComponent(row.volume)}`}>${row.volume}</a>${row.subject.slice(row.volume.length)}` : row.subject}</span>`], ['State', (row) => html`<${Pill} state=${row.state} />`],
    ['Progress', (row) => ((row.state === 'running' || row.state === 'paused') && row.total ? html`<${Meter} mood="plain" label=${`Progress of ${row.kind}`} value=${percent(row.done, row.total)} /><span class="note">${amount(row, row.done)} of ${amount(row, row.total)}</span>` : html`<span class="wrap">${row.result || '–'}</span>`)],
    ['Began', (row) => (row.began ? ago(row.began) : '–'), { extra: true }], ['', (row) => isOperator(me) && html`<${JobButtons} job=${row} />`],
  ]} empty="Nothing is under way." /></${Card}>`;
}

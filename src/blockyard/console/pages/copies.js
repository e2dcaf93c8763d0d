// Copies of discs and cartridges: how far each is, and a button to stop it.
import { html } from '../lib.js';
import { path, post, remove } from '../api.js';
import { bytes, count, percent } from '../format.js';
import { Button, Meter, Pill, Table, toast } from '../ui.js';

const SHOWN = 4;

export const amount = (job, value) => (job.unit === 'bytes' ? bytes(value) : `${count(value)} ${job.unit}`);

// What can be done with a job that is under way.
export const JobButtons = ({ job }) => {
  const told = (text, ask) => html`<${Button} kind="small" onClick=${async () => { toast(await ask()); }}>${text}</${Button}>`;
  if (job.can_resume) return told('Resume', async () => { await post(`${path('jobs', job.id)}/resume`, {}); return 'It goes on.'; });
  if (job.can_pause) return told('Pause', async () => { await post(`${path('jobs', job.id)}/pause`, {}); return 'It rests until it is resumed.'; });
  return job.can_cancel && told('Cancel', async () => { await remove(path('jobs', job.id)); return 'It is asked to stop.'; });
};

export function Copies({ jobs, of, canCancel }) {
  if (!jobs.length) return null;
  return html`<${Table} label=${`Copies of ${of}`} rows=${[...jobs].reverse().slice(0, SHOWN)} keyOf=${(row) => row.id} columns=${[
    ['Job', (row) => html`${row.kind} <span class="note wrap">${row.subject}</span>`], ['State', (row) => html`<${Pill} state=${row.state} />`],
    ['Progress', (row) => (row.state === 'running' ? html`<${Meter} mood="plain" label=${`Progress of ${row.kind} of ${row.subject}`} value=${percent(row.done, row.total)} /><span class="note">${amount(row, row.done)} of ${amount(row, row.total)}</span>` : html`<span class="wrap">${row.result || '–'}</span>`)],
    ['', (row) => canCancel && row.state === 'running' && html`<${Button} kind="small" onClick=${async () => { await remove(path('jobs', row.id)); toast('It is asked to stop.'); }}>Stop</${Button}>`]]} />`;
}

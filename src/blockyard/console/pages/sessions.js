// Who is connected, from where, doing what.
import { html } from '../lib.js';
import { path, remove } from '../api.js';
import { bytes, count, latency } from '../format.js';
import { useLive } from '../live.js';
import { Button, Card, Head, Pill, Table, toast } from '../ui.js';

export function Sessions({ me }) {
  const { sessions, activity } = useLive('sessions', 'activity');
  const key = (row) => `${row.target} ${row.tsih}`;
  const doing = (row) => activity?.sessions[key(row)];
  const rate = (ops, size) => (row) => { const now = doing(row); return now ? html`${count(now[ops])}/s<br /><span class="note">${bytes(now[size])}/s</span>` : '–'; };
  const volumes = (row) => { const now = doing(row)?.volumes ?? []; return now.length ? now.map((name) => name || '…').join(', ') : html`<span class="note">nothing now</span>`; };
  return html`<${Head} title="Sessions" sub="Hosts that are logged in now, and what they do." /><${Card}><${Table} label="Sessions" rows=${sessions ?? []} keyOf=${key} columns=${[
    ['Initiator', (row) => html`<div class="wrap name">${row.initiator}</div>${row.user && html`<div class="note">as ${row.user}</div>`}`],
    ['From', (row) => row.connections.map((each) => html`<div class="fixed" key=${each.cid}>${each.peer}<div class="note">to ${each.portal}</div></div>`)],
    ['Target', (row) => html`<a class="wrap" href=${`#/targets/${encodeURIComponent(row.target)}`}>${row.target}</a>${row.right !== 'full' && html`<div><${Pill} mood="warn">${row.right}</${Pill}></div>`}`, { extra: true }],
    ['Reads', rate('read_ops', 'read_bytes'), { number: true }], ['Writes', rate('write_ops', 'write_bytes'), { number: true }],
    ['Latency', (row) => latency(doing(row)?.latency), { number: true }], ['Queue', (row) => doing(row)?.depth ?? '–', { number: true, extra: true }],
    ['Volumes', (row) => html`<span class="wrap">${volumes(row)}</span>`, { extra: true }],
    ['', (row) => me.role !== 'viewer' && html`<${Button} kind="small danger" onClick=${async () => { await remove(path('targets', row.target, 'sessions', String(row.tsih))); toast('The session is ended; the host may log in again.'); }}>End</${Button}>`],
  ]} empty=${html`No host is logged in. <a href="#/new">Connect one</a>`} /></${Card}>`;
}

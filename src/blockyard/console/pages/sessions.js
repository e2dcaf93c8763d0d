// Who is connected, from where, doing what.
import { html } from '../lib.js';
import { path, remove } from '../api.js';
import { useLive } from '../live.js';
import { Button, Card, Head, Pill, Table, toast } from '../ui.js';

export function Sessions({ me }) {
  const { sessions } = useLive('sessions');
  return html`<${Head} title="Sessions" sub="Hosts that are logged in now." /><${Card}><${Table} label="Sessions" rows=${sessions ?? []} keyOf=${(row) => `${row.target} ${row.tsih}`} columns=${[
    ['Initiator', (row) => html`<span class="wrap">${row.initiator}</span>`], ['Target', (row) => html`<a class="wrap" href=${`#/targets/${encodeURIComponent(row.target)}`}>${row.target}</a>`, { extra: true }],
    ['From', (row) => html`<span class="wrap">${row.connections.map((each) => each.peer).join(', ')}</span>`], ['Portal', (row) => row.connections.map((each) => each.portal).join(', '), { extra: true }],
    ['User', (row) => row.user || '–'], ['Right', (row) => html`<${Pill} mood=${row.right === 'full' ? 'good' : 'warn'}>${row.right}</${Pill}>`],
    ['', (row) => me.role !== 'viewer' && html`<${Button} kind="small danger" onClick=${async () => { await remove(path('targets', row.target, 'sessions', String(row.tsih))); toast('The session is ended; the host may log in again.'); }}>End</${Button}>`],
  ]} empty=${html`No host is logged in. <a href="#/new">Connect one</a>`} /></${Card}>`;
}

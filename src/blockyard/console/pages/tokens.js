// Tokens, by which programs prove themselves to the API.
import { html } from '../lib.js';
import { edit, path, post } from '../api.js';
import { ago, when } from '../format.js';
import { Button, Card, FormDialog, Input, Paste, Select, Table, toast, useForm } from '../ui.js';

function NewToken({ roles, onClose, onDone, onMade }) {
  const form = useForm({ note: '', role: roles[0]?.[0] ?? '', lifetime: '7776000' }, async ({ note, role, lifetime }) => { onMade(await post('/tokens', { note, ...(role ? { role } : {}), ...(lifetime ? { lifetime: Number(lifetime) } : {}) })); onDone(); onClose(); });
  return html`<${FormDialog} title="New token" form=${form} onClose=${onClose} action="Make it"><${Input} label="What it is for" ...${form.bind('note')} />
    ${roles.length > 0 && html`<${Select} label="Role" options=${roles} ...${form.bind('role')} />`}
    <${Select} label="Valid for" options=${[['604800', 'A week'], ['7776000', '90 days'], ['31536000', 'A year'], ['', 'Always']]} ...${form.bind('lifetime')} /></${FormDialog}>`;
}

function Made({ token, onClose }) {
  return html`<${FormDialog} title="The new token" wide form=${{ submit: (event) => { event.preventDefault(); onClose(); } }} onClose=${onClose} action="I have it"><p>It is shown this once.</p><${Paste} label="Token" text=${token.token} /></${FormDialog}>`;
}

/** A card with tokens, to make and revoke them; `open` opens dialogs. */
export function Tokens({ title, note, tokens, roles, onDone, open }) {
  const made = (token) => setTimeout(() => open((shut) => html`<${Made} token=${token} onClose=${shut} />`));
  const revoke = (row) => async () => { await edit('DELETE', path('tokens', row.id)); toast('The token is void.'); onDone(); };
  return html`<${Card} title=${title} note=${note} actions=${html`<button type="button" class="small" onClick=${() => open((close) => html`<${NewToken} roles=${roles} onClose=${close} onDone=${onDone} onMade=${made} />`)}>New token</button>`}>
    <${Table} label="Tokens" rows=${tokens} keyOf=${(row) => row.id} columns=${[['For', (row) => html`<span class="wrap">${row.note || html`<code>${row.id}</code>`}</span>`], ['Of', (row) => row.account, { extra: true }], ['Role', (row) => row.role], ['Valid until', (row) => (row.expires ? when(row.expires) : 'always'), { extra: true }], ['Last used', (row) => (row.used ? ago(row.used) : 'never'), { extra: true }],
      ['', (row) => html`<${Button} kind="small danger" aria-label=${`Revoke ${row.note || row.id}`} onClick=${revoke(row)}>Revoke</${Button}>`]]} empty="No program has a token." /></${Card}>`;
}

// Hosts as rules of access know them, and the CHAP users by which they prove who they are.
import { html } from '../lib.js';
import { edit, get, path, put } from '../api.js';
import { Card, Check, DeleteDialog, FormDialog, Head, Input, Loaded, Pill, Table, toast, useData, useDialog, useForm } from '../ui.js';

function secret() {
  const letters = 'ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789';
  return [...crypto.getRandomValues(new Uint8Array(16))].map((each) => letters[each % letters.length]).join('');
}

function User({ user, onClose, onDone }) {
  const form = useForm({ name: user?.name ?? '', secret: '', both: Boolean(user?.mutual), mutual: user?.mutual ?? '', mutual_secret: '' }, async (values) => {
    const change = { ...(values.secret ? { secret: values.secret } : {}), ...(values.both ? { mutual: values.mutual, ...(values.mutual_secret ? { mutual_secret: values.mutual_secret } : {}) } : {}) };
    if (user) await edit('PUT', path('users', user.name), change); else await put(path('users', values.name), change);
    toast('Saved.'); onDone(); onClose();
  });
  const make = (name) => form.set((before) => ({ ...before, [name]: secret() }));
  return html`<${FormDialog} title=${user ? `Change ${user.name}` : 'New CHAP user'} form=${form} onClose=${onClose} action="Save">
    ${!user && html`<${Input} label="Name" ...${form.bind('name')} required autocomplete="off" />`}
    <${Input} label="Secret" help="12 to 16 characters suit every host; it is not shown again." ...${form.bind('secret')} required=${!user} autocomplete="off" spellcheck="false" />
    <div><button type="button" class="small" onClick=${() => make('secret')}>Make one up</button></div>
    <${Check} label="The target proves itself as well (mutual CHAP)" value=${form.values.both} onInput=${(both) => form.set((before) => ({ ...before, both }))} />
    ${form.values.both && html`<${Input} label="Name of the target for this user" ...${form.bind('mutual')} required /><${Input} label="Secret of the target" ...${form.bind('mutual_secret')} autocomplete="off" /><div><button type="button" class="small" onClick=${() => make('mutual_secret')}>Make one up</button></div>`}
  </${FormDialog}>`;
}

export function Hosts({ me }) {
  const found = useData(async () => { const [targets, users, sessions] = await Promise.all([get('/targets'), get('/users'), get('/sessions')]); return { targets, users, sessions }; }, [], ['configuration', 'sessions']);
  const [dialog, open] = useDialog();
  return html`<${Loaded} of=${found}>${({ targets, users, sessions }) => {
    const rows = targets.flatMap((target) => target.access.flatMap((rule) => (rule.initiators.length ? rule.initiators : ['any host']).map((host) => ({ host, rule, target }))));
    const seen = new Set(sessions.map((each) => each.initiator));
    return html`<${Head} title="Hosts and users" sub="Which host may do what with which target, and how hosts prove who they are.">${me.role === 'admin' && html`<button type="button" class="primary" onClick=${() => open((close) => html`<${User} onClose=${close} onDone=${found.reload} />`)}>New CHAP user</button>`}</${Head}>${dialog}
      <div class="grid"><${Card} title="Hosts"><${Table} label="Hosts" rows=${rows} keyOf=${(row) => `${row.host} ${row.target.name} ${row.rule.right} ${row.rule.users}`} columns=${[
        ['Host', (row) => html`<span class="wrap">${row.host}</span> ${seen.has(row.host) && html`<${Pill} mood="good">connected</${Pill}>`}`], ['Target', (row) => html`<a class="wrap" href=${`#/targets/${encodeURIComponent(row.target.name)}`}>${row.target.name}</a>`], ['Right', (row) => row.rule.right],
        ['Sees', (row) => Object.entries(Object.keys(row.rule.luns).length ? row.rule.luns : row.target.luns).map(([lun, volume]) => `${lun}: ${volume}`).join(', '), { extra: true }], ['CHAP', (row) => row.rule.users.join(', ') || 'no', { extra: true }]]}
        empty="No target has rules: every host may use every target. Add rules on a target's page." /></${Card}>
      <${Card} title="CHAP users"><${Table} label="CHAP users" rows=${users} keyOf=${(row) => row.name} columns=${[['Name', (row) => row.name], ['Mutual', (row) => row.mutual ?? 'no'], ['Groups', (row) => row.groups.join(', ') || '–', { extra: true }],
        ['', (row) => me.role === 'admin' && html`<span class="row"><button type="button" class="small" onClick=${() => open((close) => html`<${User} user=${row} onClose=${close} onDone=${found.reload} />`)}>Change</button><button type="button" class="small danger" onClick=${() => open((close) => html`<${DeleteDialog} what="user" name=${row.name} text="Hosts that use it can no longer log in." onClose=${close} onDelete=${async () => { await edit('DELETE', path('users', row.name)); found.reload(); }} />`)}>Delete</button></span>`]]}
        empty="None: nobody has to prove who he is." /></${Card}></div>`;
  }}</${Loaded}>`;
}

// Accounts of people, and tokens of programs.
import { html } from '../lib.js';
import { edit, get, path, post, put, remove } from '../api.js';
import { ago, when } from '../format.js';
import { Card, DeleteDialog, FormDialog, Head, Input, Loaded, Paste, Pill, Select, Table, toast, useData, useDialog, useForm } from '../ui.js';

const ROLES = [['viewer', 'Viewer: sees everything but secrets'], ['operator', 'Operator: and does what happens every day'], ['admin', 'Admin: and decides what is configured'], ['owner', 'Owner: of single targets']];

function NewAccount({ targets, onClose, onDone }) {
  const form = useForm({ name: '', role: 'operator', password: '', targets: '' }, async ({ name, role, password, targets: theirs }) => {
    await post('/accounts', { name, role, password, ...(role === 'owner' ? { targets: theirs.split(/[\s,]+/).filter(Boolean) } : {}) });
    toast(`${name} can log in.`); onDone(); onClose();
  });
  return html`<${FormDialog} title="New account" form=${form} onClose=${onClose} action="Make it"><${Input} label="Name" ...${form.bind('name')} required autocomplete="off" /><${Select} label="Role" options=${ROLES} ...${form.bind('role')} />
    ${form.values.role === 'owner' && html`<${Input} label="Targets" help=${`Of ${targets.map((each) => each.name).join(', ')}`} ...${form.bind('targets')} />`}
    <${Input} label="Password" type="password" help="12 characters at least." ...${form.bind('password')} required autocomplete="new-password" /></${FormDialog}>`;
}

function ChangeAccount({ account, onClose, onDone }) {
  const form = useForm({ role: account.role, enabled: account.enabled ? 'yes' : 'no', password: '' }, async ({ role, enabled, password }) => {
    await edit('PATCH', path('accounts', account.name), { role, enabled: enabled === 'yes', ...(password ? { password } : {}) });
    toast('Changed.'); onDone(); onClose();
  });
  return html`<${FormDialog} title=${`Change ${account.name}`} form=${form} onClose=${onClose} action="Save"><${Select} label="Role" options=${ROLES} ...${form.bind('role')} /><${Select} label="May log in" options=${['yes', 'no']} ...${form.bind('enabled')} />
    <${Input} label="New password" type="password" help="Empty: it stays." ...${form.bind('password')} autocomplete="new-password" /></${FormDialog}>`;
}

function NewToken({ onClose, onDone, onMade }) {
  const form = useForm({ note: '', role: 'viewer', lifetime: '7776000' }, async ({ note, role, lifetime }) => { onMade(await post('/tokens', { note, role, ...(lifetime ? { lifetime: Number(lifetime) } : {}) })); onDone(); onClose(); });
  return html`<${FormDialog} title="New token" form=${form} onClose=${onClose} action="Make it"><${Input} label="What it is for" ...${form.bind('note')} /><${Select} label="Role" options=${ROLES.slice(0, 3)} ...${form.bind('role')} />
    <${Select} label="Valid for" options=${[['604800', 'A week'], ['7776000', '90 days'], ['31536000', 'A year'], ['', 'Always']]} ...${form.bind('lifetime')} /></${FormDialog}>`;
}

function Made({ token, onClose }) {
  return html`<${FormDialog} title="The new token" wide form=${{ submit: (event) => { event.preventDefault(); onClose(); } }} onClose=${onClose} action="I have it"><p>It is shown this once.</p><${Paste} label="Token" text=${token.token} /></${FormDialog}>`;
}

function Password({ onClose }) {
  const form = useForm({ old: '', new: '' }, async (values) => { await put('/me/password', values); toast('You have a new password.'); onClose(); });
  return html`<${FormDialog} title="Change your password" form=${form} onClose=${onClose} action="Change"><${Input} label="Password now" type="password" ...${form.bind('old')} required autocomplete="current-password" /><${Input} label="New password" type="password" ...${form.bind('new')} required autocomplete="new-password" /></${FormDialog}>`;
}

export function People() {
  const found = useData(async () => { const [accounts, tokens, targets] = await Promise.all([get('/accounts'), get('/tokens'), get('/targets')]); return { accounts, tokens, targets }; });
  const [dialog, open] = useDialog();
  return html`<${Loaded} of=${found}>${({ accounts, tokens, targets }) => html`<${Head} title="Accounts" sub="People who log in here, and programs that use the API."><button type="button" onClick=${() => open((close) => html`<${Password} onClose=${close} />`)}>Your password</button><button type="button" class="primary" onClick=${() => open((close) => html`<${NewAccount} targets=${targets} onClose=${close} onDone=${found.reload} />`)}>New account</button></${Head}>${dialog}
    <div class="grid"><${Card} title="People"><${Table} label="Accounts" rows=${accounts} keyOf=${(row) => row.name} columns=${[['Name', (row) => row.name], ['Role', (row) => row.role], ['May log in', (row) => html`<${Pill} mood=${row.enabled ? 'good' : 'bad'}>${row.enabled ? 'yes' : 'no'}</${Pill}>`], ['One-time passwords', (row) => (row.totp ? 'yes' : 'no'), { extra: true }],
        ['', (row) => html`<span class="row"><button type="button" class="small" onClick=${() => open((close) => html`<${ChangeAccount} account=${row} onClose=${close} onDone=${found.reload} />`)}>Change</button><button type="button" class="small danger" onClick=${() => open((close) => html`<${DeleteDialog} what="account" name=${row.name} text="Its sessions and tokens end at once." onClose=${close} onDelete=${async () => { await edit('DELETE', path('accounts', row.name)); found.reload(); }} />`)}>Delete</button></span>`]]} /></${Card}>
      <${Card} title="Tokens" actions=${html`<button type="button" class="small" onClick=${() => open((close) => html`<${NewToken} onClose=${close} onDone=${found.reload} onMade=${(token) => setTimeout(() => open((shut) => html`<${Made} token=${token} onClose=${shut} />`))} />`)}>New token</button>`}>
        <${Table} label="Tokens" rows=${tokens} keyOf=${(row) => row.id} columns=${[['For', (row) => row.note || html`<code>${row.id}</code>`], ['Of', (row) => row.account], ['Role', (row) => row.role], ['Valid until', (row) => (row.expires ? when(row.expires) : 'always'), { extra: true }], ['Last used', (row) => (row.used ? ago(row.used) : 'never'), { extra: true }],
          ['', (row) => html`<button type="button" class="small danger" onClick=${async () => { try { await remove(path('tokens', row.id)); toast('The token is void.'); found.reload(); } catch (error) { toast(error.message, true); } }}>Revoke</button>`]]} empty="No program has a token." /></${Card}></div>`}</${Loaded}>`;
}

// Accounts of people, and all tokens of programs.
import { html } from '../lib.js';
import { edit, get, path, post } from '../api.js';
import { Card, Check, DeleteDialog, FormDialog, Head, Input, Loaded, Pill, Select, Table, toast, useData, useDialog, useForm } from '../ui.js';
import { Tokens } from './tokens.js';

const ROLES = [['viewer', 'Viewer: sees everything but secrets'], ['operator', 'Operator: and does what happens every day'], ['admin', 'Admin: and decides what is configured'], ['owner', 'Owner: of single targets']];

/** What an owner is the owner of. */
function Owned({ targets, chosen, onChange }) {
  const known = [...new Set([...targets.map((each) => each.name), ...chosen])];
  if (!known.length) return html`<p class="note">There is no target yet.</p>`;
  return html`<fieldset class="checks"><legend>Targets that are theirs</legend>${known.map((name) => html`<${Check} key=${name} label=${name} value=${chosen.includes(name)} onInput=${(on) => onChange(on ? [...chosen, name] : chosen.filter((each) => each !== name))} />`)}</fieldset>`;
}

function NewAccount({ targets, onClose, onDone }) {
  const form = useForm({ name: '', role: 'operator', password: '', targets: [] }, async ({ name, role, password, targets: theirs }) => {
    await post('/accounts', { name, role, password, ...(role === 'owner' ? { targets: theirs } : {}) });
    toast(`${name} can log in.`); onDone(); onClose();
  });
  return html`<${FormDialog} title="New account" form=${form} onClose=${onClose} action="Make it"><${Input} label="Name" ...${form.bind('name')} required autocomplete="off" /><${Select} label="Role" options=${ROLES} ...${form.bind('role')} />
    ${form.values.role === 'owner' && html`<${Owned} targets=${targets} chosen=${form.values.targets} onChange=${form.bind('targets').onInput} />`}
    <${Input} label="Password" type="password" help="12 characters at least." ...${form.bind('password')} required autocomplete="new-password" /></${FormDialog}>`;
}

function ChangeAccount({ account, targets, onClose, onDone }) {
  const form = useForm({ role: account.role, targets: account.targets, enabled: account.enabled, password: '', lost: false }, async ({ role, targets: theirs, enabled, password, lost }) => {
    await edit('PATCH', path('accounts', account.name), { role, enabled, ...(role === 'owner' ? { targets: theirs } : {}), ...(password ? { password } : {}), ...(lost ? { totp: false } : {}) });
    toast('Changed.'); onDone(); onClose();
  });
  const { values, bind } = form;
  return html`<${FormDialog} title=${`Change ${account.name}`} form=${form} onClose=${onClose} action="Save"><p class="note">Its sessions of the console end.</p><${Select} label="Role" options=${ROLES} ...${bind('role')} />
    ${values.role === 'owner' && html`<${Owned} targets=${targets} chosen=${values.targets} onChange=${bind('targets').onInput} />`}
    <${Check} label="May log in" value=${values.enabled} onInput=${bind('enabled').onInput} />
    ${account.totp && html`<${Check} label="Ask for one-time passwords no more" help="Where a telephone was lost." value=${values.lost} onInput=${bind('lost').onInput} />`}
    <${Input} label="New password" type="password" help="Empty: it stays." ...${bind('password')} autocomplete="new-password" /></${FormDialog}>`;
}

export function People() {
  const found = useData(async () => { const [accounts, tokens, targets] = await Promise.all([get('/accounts'), get('/tokens'), get('/targets')]); return { accounts, tokens, targets }; });
  const [dialog, open] = useDialog();
  return html`<${Loaded} of=${found}>${({ accounts, tokens, targets }) => html`<${Head} title="Accounts" sub="People who log in here, and programs that use the API."><a class="button" href="#/me">Your account</a><button type="button" class="primary" onClick=${() => open((close) => html`<${NewAccount} targets=${targets} onClose=${close} onDone=${found.reload} />`)}>New account</button></${Head}>${dialog}
    <div class="grid"><${Card} title="People"><${Table} label="Accounts" rows=${accounts} keyOf=${(row) => row.name} columns=${[['Name', (row) => row.name], ['Role', (row) => html`${row.role}${row.role === 'owner' && html`<div class="note wrap">${row.targets.join(', ')}</div>`}`], ['May log in', (row) => html`<${Pill} mood=${row.enabled ? 'good' : 'bad'}>${row.enabled ? 'yes' : 'no'}</${Pill}>`], ['One-time passwords', (row) => (row.totp ? 'yes' : 'no'), { extra: true }],
        ['', (row) => html`<span class="row"><button type="button" class="small" onClick=${() => open((close) => html`<${ChangeAccount} account=${row} targets=${targets} onClose=${close} onDone=${found.reload} />`)}>Change</button><button type="button" class="small danger" onClick=${() => open((close) => html`<${DeleteDialog} what="account" name=${row.name} text="Its sessions and tokens end at once." onClose=${close} onDelete=${async () => { await edit('DELETE', path('accounts', row.name)); found.reload(); }} />`)}>Delete</button></span>`]]} /></${Card}>
      <${Tokens} title="Tokens" tokens=${tokens} roles=${ROLES.slice(0, 3)} onDone=${found.reload} open=${open} /></div>`}</${Loaded}>`;
}

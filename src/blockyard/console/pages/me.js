// What is one's own: the password, one-time passwords, tokens.
import { html, useState } from '../lib.js';
import { get, put } from '../api.js';
import { duration } from '../format.js';
import { Card, Facts, FormDialog, Head, Input, Loaded, Paste, Pill, toast, useData, useDialog, useForm } from '../ui.js';
import { Tokens } from './tokens.js';

const ROLES = [['viewer', 'Viewer: sees everything but secrets'], ['operator', 'Operator: and does what happens every day'], ['admin', 'Admin: and decides what is configured']];

function Password({ onClose }) {
  const form = useForm({ old: '', new: '', again: '' }, async ({ old, new: wanted, again }) => {
    if (wanted !== again) throw new Error('The two new passwords are not the same.');
    await put('/me/password', { old, new: wanted }); toast('You have a new password; your other sessions have ended.'); onClose();
  });
  return html`<${FormDialog} title="Change your password" form=${form} onClose=${onClose} action="Change"><${Input} label="Password now" type="password" ...${form.bind('old')} required autocomplete="current-password" />
    <${Input} label="New password" type="password" help="12 characters at least: a few words are easy to keep in mind." ...${form.bind('new')} required autocomplete="new-password" /><${Input} label="New password again" type="password" ...${form.bind('again')} required autocomplete="new-password" /></${FormDialog}>`;
}

/** In two steps: the password, which brings the secret; then a code, which shows that the telephone has it. */
function TurnOn({ onClose, onDone }) {
  const [told, tell] = useState(null);
  const form = useForm({ password: '', code: '' }, async ({ password, code }) => {
    if (!told) { tell(await put('/me/totp', { password })); return; }
    await put('/me/totp', { password, code: code.replace(/\s/g, '') });
    toast('From now on you are asked for a one-time password when you log in.'); onDone(); onClose();
  });
  const secret = told && new URL(told.uri).searchParams.get('secret');
  return html`<${FormDialog} title="One-time passwords" form=${form} onClose=${onClose} action=${told ? 'Turn them on' : 'Go on'}>
    ${!told && html`<p>An app on your telephone shows a code that changes every half minute; to log in, it is needed besides the password.</p><${Input} label="Password" type="password" ...${form.bind('password')} required autocomplete="current-password" />`}
    ${told && html`<p>Scan this with the app: any that knows time-based codes will do.</p><div class="qr"><img src=${told.qr} alt="QR code with the secret for your app" width="240" height="240" /></div>
      <details class="more"><summary>It cannot be scanned</summary><p class="note">Type this secret into the app.</p><${Paste} label="Secret" text=${secret.match(/.{1,4}/g).join(' ')} /></details>
      <${Input} label="Code that the app shows" ...${form.bind('code')} required inputmode="numeric" autocomplete="one-time-code" pattern="[0-9 ]{6,7}" />`}</${FormDialog}>`;
}

function TurnOff({ onClose, onDone }) {
  const form = useForm({ password: '' }, async ({ password }) => { await put('/me/totp', { password, off: true }); toast('The password alone is enough again.'); onDone(); onClose(); });
  return html`<${FormDialog} title="No more one-time passwords?" form=${form} onClose=${onClose} action="Turn them off" danger><p>Whoever knows your password can log in then.</p><${Input} label="Password" type="password" ...${form.bind('password')} required autocomplete="current-password" /></${FormDialog}>`;
}

export function Me() {
  const found = useData(async () => { const [me, tokens] = await Promise.all([get('/me'), get('/tokens')]); return { me, tokens: tokens.filter((each) => each.account === me.name) }; });
  const [dialog, open] = useDialog();
  return html`<${Loaded} of=${found}>${({ me, tokens }) => {
    const roles = ROLES.slice(0, ROLES.findIndex(([role]) => role === me.role) + 1);
    return html`<${Head} title="Your account" />${dialog}<div class="grid">
      <${Card} title=${me.name} span="span6"><div class="stack"><${Facts} of=${[['Role', me.role], me.targets.length > 0 && ['Targets', me.targets.join(', ')], ['This session', `ends after ${duration(me.expires_in ?? 0)} without you`]]} />
        <div><button type="button" onClick=${() => open((close) => html`<${Password} onClose=${close} />`)}>Change your password</button></div></div></${Card}>
      <${Card} title="One-time passwords" span="span6"><div class="stack"><div><${Pill} mood=${me.totp ? 'good' : 'warn'}>${me.totp ? 'on' : 'off'}</${Pill}></div>
        <p class="note">${me.totp ? 'Logging in takes a code of your telephone besides the password.' : 'Whoever learns your password can log in as you. A code of your telephone keeps them out.'}</p>
        <div>${me.totp ? html`<button type="button" onClick=${() => open((close) => html`<${TurnOff} onClose=${close} onDone=${found.reload} />`)}>Turn them off</button>` : html`<button type="button" class="primary" onClick=${() => open((close) => html`<${TurnOn} onClose=${close} onDone=${found.reload} />`)}>Set them up</button>`}</div></div></${Card}>
      <${Tokens} title="Your tokens" note="for programs that use the API as you" tokens=${tokens} roles=${roles} onDone=${found.reload} open=${open} /></div>`;
  }}</${Loaded}>`;
}

// Before one is in: the first account, and logging in.
import { html, useEffect } from '../lib.js';
import { post } from '../api.js';
import { Input, useForm } from '../ui.js';

function Entry({ title, text, form, action, children }) {
  useEffect(() => { document.title = `${title} – Blockyard`; }, [title]);
  return html`<main class="center"><form class="card stack" onSubmit=${form.submit}>
    <div class="row"><img src="icon.svg" alt="" width="34" height="34" /><h1>${title}</h1></div>
    <p class="note">${text}</p>${children}
    ${form.problem && html`<div class="alert" role="alert">${form.problem.message}</div>`}
    <button type="submit" class="primary" disabled=${form.busy}>${form.busy ? 'One moment …' : action}</button></form></main>`;
}

export function Setup({ codeNeeded, onDone }) {
  const form = useForm({ name: 'admin', password: '', again: '', code: '' }, async ({ name, password, again, code }) => {
    if (password !== again) throw new Error('The two passwords are not the same.');
    onDone(await post('/setup', { name, password, ...(codeNeeded ? { code } : {}) }));
  });
  return html`<${Entry} title="Welcome to Blockyard" text="Nobody can log in yet. Make the first account: it administers this server, and makes others later." form=${form} action="Make the account">
    <${Input} label="Name" ...${form.bind('name')} autocomplete="username" required />
    <${Input} label="Password" type="password" help="12 characters at least: a few words are easy to keep in mind." ...${form.bind('password')} autocomplete="new-password" required />
    <${Input} label="Password again" type="password" ...${form.bind('again')} autocomplete="new-password" required />
    ${codeNeeded && html`<${Input} label="Code" help="The server printed it when it started; this shows that you are its administrator." ...${form.bind('code')} autocomplete="off" required />`}
  </${Entry}>`;
}

export function Login({ onDone }) {
  const form = useForm({ name: '', password: '', code: '', asks: false }, async ({ name, password, code, asks }) => {
    try {
      onDone(await post('/login', { name, password, ...(asks ? { code } : {}) }));
    } catch (error) {
      if (/one-time/.test(error.message) && !asks) { form.set((before) => ({ ...before, asks: true })); return; }
      throw error;
    }
  });
  return html`<${Entry} title="Log in" text="To the console of this Blockyard server." form=${form} action="Log in">
    <${Input} label="Name" ...${form.bind('name')} autocomplete="username" required />
    <${Input} label="Password" type="password" ...${form.bind('password')} autocomplete="current-password" required />
    ${form.values.asks && html`<${Input} label="One-time password" ...${form.bind('code')} inputmode="numeric" autocomplete="one-time-code" required />`}
  </${Entry}>`;
}

// The console: first-run set-up or login, then the shell with its pages. Where one is stands behind the # of the address.
import { html, render, useEffect, useRef, useState } from './lib.js';
import { authenticated, get, onLost, post } from './api.js';
import { connect, disconnect, useLive } from './live.js';
import { Button, Toasts, toast } from './ui.js';
import { Login, Setup } from './pages/entry.js';
import { Dashboard } from './pages/dashboard.js';
import { Volumes } from './pages/volumes.js';
import { PoolVolumePage } from './pages/poolvolume.js';
import { VolumePage } from './pages/volume.js';
import { PoolPage, Pools } from './pages/pools.js';
import { TargetPage, Targets } from './pages/targets.js';
import { Sessions } from './pages/sessions.js';
import { Hosts } from './pages/hosts.js';
import { Events, Jobs } from './pages/events.js';
import { People } from './pages/people.js';
import { Me } from './pages/me.js';
import { Media } from './pages/media.js';
import { Schedules } from './pages/schedules.js';
import { Settings } from './pages/settings.js';
import { Wizard } from './pages/wizard.js';
import { Build } from './pages/build.js';

// Path → page. What begins with a colon becomes a property; the last may have slashes in it.
const PAGES = [
  ['/', Dashboard], ['/volumes', Volumes], ['/volumes/:name', VolumePage], ['/pools', Pools], ['/pools/:name', PoolPage], ['/pools/:pool/volumes/:name', PoolVolumePage],
  ['/targets', Targets], ['/targets/:name', TargetPage], ['/hosts', Hosts], ['/sessions', Sessions], ['/schedules', Schedules], ['/media', Media],
  ['/jobs', Jobs], ['/events', Events], ['/people', People], ['/me', Me], ['/settings', Settings], ['/new', Wizard], ['/build', Build],
];

const MENU = [
  ['Storage', [['Dashboard', '/'], ['Volumes', '/volumes'], ['Pools', '/pools'], ['Schedules', '/schedules'], ['Tapes and discs', '/media']]],
  ['Network', [['Targets', '/targets'], ['Hosts and users', '/hosts'], ['Sessions', '/sessions']]],
  ['Server', [['Jobs', '/jobs'], ['Events', '/events'], ['Accounts', '/people'], ['Settings', '/settings']]],
];

const OF_OWNERS = ['/', '/volumes', '/targets', '/sessions', '/events']; // what concerns their targets

function isFor(me, to) { return me.role === 'owner' ? OF_OWNERS.includes(to) : to !== '/people' || me.role === 'admin'; }

function matched(where) {
  const parts = where.split('/').filter(Boolean).map(decodeURIComponent);
  for (const [pattern, page] of PAGES) {
    const wanted = pattern.split('/').filter(Boolean);
    if (wanted.length !== parts.length) continue;
    const found = {};
    if (wanted.every((part, at) => (part[0] === ':' ? ((found[part.slice(1)] = parts[at]), true) : part === parts[at]))) return [page, found];
  }
  return [Missing, {}];
}

function Missing() {
  return html`<div class="empty"><h1>There is no such page</h1><a href="#/">To the dashboard</a></div>`;
}

function useWhere() {
  const read = () => location.hash.slice(1) || '/';
  const [where, set] = useState(read());
  useEffect(() => {
    const changed = () => set(read());
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  return where;
}

// ---- light and dark

const THEMES = { system: 'As the system', light: 'Light', dark: 'Dark' };
const dark = matchMedia('(prefers-color-scheme: dark)');

function themed(choice) {
  document.documentElement.dataset.theme = choice === 'system' ? (dark.matches ? 'dark' : 'light') : choice;
}

function chosenTheme() { return localStorage.getItem('theme') in THEMES ? localStorage.getItem('theme') : 'system'; }

themed(chosenTheme());
dark.addEventListener('change', () => themed(chosenTheme()));

function ThemeChoice() {
  const [choice, set] = useState(chosenTheme());
  const choose = (event) => { set(event.currentTarget.value); localStorage.setItem('theme', event.currentTarget.value); themed(event.currentTarget.value); };
  return html`<label class="row between">Colours <select onInput=${choose} value=${choice} class="narrow">${Object.entries(THEMES).map(([key, text]) => html`<option value=${key} selected=${key === choice}>${text}</option>`)}</select></label>`;
}

// ---- the shell

function Brand() {
  return html`<a class="brand" href="#/"><img src="icon.svg" alt="" />Blockyard</a>`;
}

function Counted({ to }) {
  const { sessions, jobs } = useLive('sessions', 'jobs');
  const number = to === '/sessions' ? sessions?.length : to === '/jobs' ? jobs.filter((job) => job.state === 'running').length || undefined : undefined;
  return number === undefined ? null : html`<span class="count">${number}</span>`;
}

function Shell({ me, onLogOut }) {
  const where = useWhere();
  const [open, setOpen] = useState(false);
  const main = useRef(null);
  const first = useRef(true);
  const { connected } = useLive('connection');
  const [Page, found] = matched(where.split('?')[0]);
  useEffect(() => { setOpen(false); if (!first.current) { main.current.focus(); scrollTo(0, 0); } first.current = false; }, [where]);
  const current = (to) => (to === '/' ? where === '/' : where === to || where.startsWith(`${to}/`)) ? 'page' : undefined;
  const skip = (event) => { event.preventDefault(); main.current.focus(); };
  return html`<a class="skip" href="#main" onClick=${skip}>To the content</a>
    <div class="topbar"><${Brand} /><button type="button" aria-expanded=${open} aria-controls="side" onClick=${() => setOpen(!open)}>Menu</button></div>
    <div class="shell">
      <header class=${open ? 'side open' : 'side'} id="side"><${Brand} />
        <nav aria-label="Pages">${MENU.filter(([, entries]) => entries.some(([, to]) => isFor(me, to))).map(([heading, entries]) => html`<span class="heading">${heading}</span>
          ${entries.filter(([, to]) => isFor(me, to)).map(([text, to]) => html`<a href=${`#${to}`} aria-current=${current(to)}>${text}<${Counted} to=${to} /></a>`)}`)}</nav>
        <div class="me"><${ThemeChoice} />
          <div class="row between"><a href="#/me" aria-current=${current('/me')}><b>${me.name}</b> <span class="note">${me.role}</span></a><${Button} kind="quiet small" onClick=${onLogOut}>Log out</${Button}></div></div>
      </header>
      <main class="main" id="main" tabindex="-1" ref=${main}>
        ${!connected && html`<div class="alert warn" role="status">Connecting to the server … what is shown may be out of date.</div>`}
        <${Page} key=${where} me=${me} ...${found} /></main>
    </div><${Toasts} />`;
}

function App() {
  const [state, set] = useState({ at: 'loading' });
  const look = async () => {
    try {
      const setup = await get('/setup');
      if (setup.needed) { set({ at: 'setup', setup }); return; }
      const me = await get('/me');
      enter(me);
    } catch (error) {
      set(error.status === 401 || error.status === 403 ? { at: 'login' } : { at: 'trouble', error });
    }
  };
  const enter = (me) => { authenticated(me); connect(); set({ at: 'in', me }); };
  useEffect(() => {
    onLost(() => { disconnect(); set({ at: 'login' }); toast('The session has ended: log in again.', true); });
    look();
  }, []);
  const logOut = async () => { await post('/logout'); disconnect(); authenticated(null); set({ at: 'login' }); };
  if (state.at === 'in') return html`<${Shell} me=${state.me} onLogOut=${logOut} />`;
  if (state.at === 'setup') return html`<${Setup} codeNeeded=${state.setup.code_needed} onDone=${enter} />`;
  if (state.at === 'login') return html`<${Login} onDone=${enter} />`;
  if (state.at === 'trouble') return html`<main class="center"><div class="card stack"><h1>Blockyard</h1><div class="alert" role="alert">${state.error.message}</div><${Button} onClick=${look}>Try again</${Button}></div></main>`;
  return html`<main class="center"><p role="status">Loading …</p></main>`;
}

render(html`<${App} />`, document.getElementById('app'));

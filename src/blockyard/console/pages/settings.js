// The whole configuration: what it says, what it has said, who changed it; and one file to put in its place.
import { html, useState } from '../lib.js';
import { edit, get } from '../api.js';
import { when } from '../format.js';
import { Button, Card, Facts, Head, Loaded, Table, Tabs, toast, useData } from '../ui.js';

function Whole() {
  const whole = useData(() => get('/configuration'));
  const save = (text) => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], { type: 'application/toml' }));
    link.download = 'blockyard.toml';
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return html`<${Card} title="The configuration as a file" note="for blockyard apply -f, or serve --config"><${Loaded} of=${whole}>${(now) => html`<div class="stack"><pre class="paste" tabindex="0" aria-label="Configuration">${now.toml}</pre><div><button type="button" onClick=${() => save(now.toml)}>Download</button></div></div>`}</${Loaded}></${Card}>`;
}

function History({ me }) {
  const revisions = useData(() => get('/configuration/revisions'));
  const back = (number) => async () => { await edit('POST', '/configuration', {}, `/configuration/revisions/${number}/rollback`); toast(`The configuration is that of revision ${number} again.`); revisions.reload(); };
  return html`<${Card} title="Revisions"><${Loaded} of=${revisions}>${(list) => html`<${Table} label="Revisions" rows=${[...list].sort((a, b) => b.revision - a.revision)} keyOf=${(row) => row.revision} columns=${[['Revision', (row) => row.revision, { number: true }], ['What', (row) => html`<span class="wrap">${row.what}</span>`], ['Who', (row) => row.who], ['When', (row) => when(row.time), { extra: true }],
    ['', (row) => me.role === 'admin' && html`<${Button} kind="small" onClick=${back(row.revision)}>Back to this</${Button}>`]]} empty="This server is configured by a file or arguments." />`}</${Loaded}></${Card}>`;
}

function Audit() {
  const entries = useData(() => get('/audit'));
  return html`<${Card} title="Who changed what"><${Loaded} of=${entries}>${(list) => html`<${Table} label="Audit log" rows=${[...list].sort((a, b) => b.id - a.id)} keyOf=${(row) => row.id} columns=${[['When', (row) => when(row.time)], ['Who', (row) => row.who], ['What', (row) => html`<span class="wrap">${row.what}</span>`]]} empty="Nothing yet." />`}</${Loaded}></${Card}>`;
}

function About() {
  const status = useData(() => get('/status'));
  return html`<${Card} title="This server"><${Loaded} of=${status}>${(now) => html`<${Facts} of=${[['Version', now.version], ['Configured by', now.configured_by === 'managed' ? 'this console, the API and the command line' : now.configured_by === 'file' ? now.configuration_file : 'arguments of the command'], ['Workers', now.workers], ['Process', now.pid]]} />`}</${Loaded}></${Card}>`;
}

export function Settings({ me }) {
  const names = ['Server', 'Configuration', 'Revisions', ...(me.role === 'admin' ? ['Audit'] : [])];
  const [tab, set] = useState(names[0]);
  return html`<${Head} title="Settings" /><${Tabs} names=${names} current=${tab} onChange=${set} />
    ${tab === 'Server' && html`<${About} />`}${tab === 'Configuration' && html`<${Whole} />`}${tab === 'Revisions' && html`<${History} me=${me} />`}${tab === 'Audit' && html`<${Audit} />`}`;
}


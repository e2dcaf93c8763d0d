// The layers of a volume: how each is, what it has done and is doing, and what can be done with it while it is in use.
import { html } from '../lib.js';
import { post } from '../api.js';
import { bytes, count, percent } from '../format.js';
import { Button, Card, Check, Facts, FormDialog, Input, Loaded, Meter, Pill, Table, toast, useData, useDialog, useForm } from '../ui.js';

const TROUBLE = { failed: 'bad', degraded: 'warn' };
const words = (name) => name.replaceAll('_', ' ');
const ask = async (request, more) => (await post('/commands/layer', { request, ...more })).result;

/** What a layer counts may be nested, or no number. */
function shown(value) { return typeof value === 'number' ? count(value) : typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value); }

/** An action's options as a form: what is left empty stays as it is. */
function Act({ layer, label, name, action, onClose, onDone }) {
  const options = Object.entries(action.options);
  const first = Object.fromEntries(options.map(([key, option]) => [key, option.type === 'bool' ? option.default === true : String(option.default ?? '')]));
  const form = useForm(first, async (values) => {
    const given = Object.fromEntries(options.filter(([key]) => values[key] !== first[key] && values[key] !== '').map(([key]) => [key, values[key]]));
    const reply = await ask('act', { layer, action: name, options: given });
    toast(reply.job === undefined ? reply.said || 'It is done.' : 'It has begun: its progress is shown below the layers.');
    onDone();
    onClose();
  });
  return html`<${FormDialog} title=${`${words(name)}: ${label}`} form=${form} onClose=${onClose} action="Do it" danger=${['fail', 'remove', 'detach', 'remove-key'].includes(name)}>
    <p>${action.text}</p>${options.map(([key, option]) => (option.type === 'bool'
      ? html`<${Check} key=${key} label=${words(key)} value=${form.values[key]} onInput=${form.bind(key).onInput} />`
      : html`<${Input} key=${key} label=${words(key)} help=${option.default === undefined ? '' : 'What is not changed stays.'} ...${form.bind(key)} required=${option.default === undefined} spellcheck="false" autocomplete="off" />`))}
  </${FormDialog}>`;
}

function Members({ of }) {
  return html`<${Table} label=${`Members of ${of.label}`} rows=${[...of.members, ...of['left out'].map((each) => ({ member: each.member, role: 'left out', state: 'left out', 'last error': each.why }))]} keyOf=${(row) => `${row.role} ${row.member}`} columns=${[
    ['Role', (row) => row.role], ['Member', (row) => html`<code class="wrap">${row.member}</code>`],
    ['State', (row) => html`<${Pill} mood=${{ 'in sync': 'good', rebuilding: 'warn', faulty: 'bad', 'left out': 'bad' }[row.state] ?? ''}>${row.state}</${Pill}>`],
    ['Rebuilt', (row) => (row.rebuilt ? `${percent(...row.rebuilt).toFixed(0)} %` : '–'), { number: true, extra: true }], ['Mended', (row) => count(row.corrected ?? 0), { number: true, extra: true }],
    ['', (row) => html`<span class="wrap">${row['last error'] ?? ''}</span>`]]} />`;
}

function Layer({ of, at, onAct }) {
  const numbers = Object.entries({ ...of.gauges, ...of.counters });
  return html`<li><div class="row"><b class="wrap">${of.label}</b><${Pill} state=${of.health} /><span class="note">${bytes(of.size)}</span>
      ${onAct && of.actions.map((name) => html`<${Button} key=${name} kind="small" aria-label=${`${words(name)}: ${of.label}`} onClick=${() => onAct(at, of.label, name)}>${words(name)}</${Button}>`)}</div>
    ${of.text && html`<p class=${of.health in TROUBLE ? 'alert warn' : 'note wrap'}>${of.text}</p>`}
    ${of.progress && html`<${Meter} mood="plain" label=${`Progress of ${of.label}`} value=${percent(...of.progress)} />`}
    ${of.members && html`<${Members} of=${of} />`}
    ${numbers.length > 0 && html`<details><summary>Figures</summary><${Facts} of=${numbers.map(([name, value]) => [words(name), shown(value)])} /></details>`}
    ${of.children.length > 0 && html`<ul class="tree">${of.children.map((child, place) => html`<${Layer} key=${place} of=${child} at=${`${at}/${place}`} onAct=${onAct} />`)}</ul>`}</li>`;
}

function Work({ jobs, canCancel }) {
  return html`<${Table} label="Jobs of layers" rows=${[...jobs].reverse().slice(0, 5)} keyOf=${(row) => row.number} columns=${[
    ['Job', (row) => row.kind], ['State', (row) => html`<${Pill} state=${row.state} />`],
    ['Progress', (row) => (row.state === 'running' ? html`<${Meter} mood="plain" label=${`Progress of ${row.kind}`} value=${percent(row.done, row.total)} />` : html`<span class="wrap">${row.result || '–'}</span>`)],
    ['', (row) => canCancel && row.state === 'running' && html`<${Button} kind="small" onClick=${async () => { await post('/commands/layer%20cancel', { job: row.number }); toast('It is asked to stop.'); }}>Cancel</${Button}>`]]} />`;
}

export function Stack({ name, me }) {
  const found = useData(async () => {
    const [{ tree }, { result }] = await Promise.all([ask('show', { layer: name }), post('/commands/layer%20jobs')]);
    return { tree, jobs: result.jobs.filter((job) => job.subject === name || job.subject.startsWith(`${name}: `)) };
  }, [name], ['statistics']);
  const [dialog, open] = useDialog();
  const act = async (layer, label, action) => {
    const { actions } = await ask('actions', { layer });
    open((close) => html`<${Act} layer=${layer} label=${label} name=${action} action=${actions[action]} onClose=${close} onDone=${found.reload} />`);
  };
  return html`${dialog}<${Card} title="Layers"><${Loaded} of=${found}>${({ tree, jobs }) => html`<div class="stack">
    ${tree.health in TROUBLE && html`<div class=${TROUBLE[tree.health] === 'bad' ? 'alert' : 'alert warn'} role="alert">The layers of ${name} are ${tree.health}: look for the reason below.</div>`}
    <ul class="tree"><${Layer} of=${tree} at=${name} onAct=${me.role === 'admin' ? act : null} /></ul>
    ${jobs.length > 0 && html`<div><h3>What is being done with them</h3><${Work} jobs=${jobs} canCancel=${me.role !== 'viewer'} /></div>`}</div>`}</${Loaded}></${Card}>`;
}

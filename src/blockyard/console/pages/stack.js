// The layers of a volume: how each is, what it has done and is doing, and what can be done with it while it is in use.
import { html } from '../lib.js';
import { get, isOperator, path, post, remove } from '../api.js';
import { bytes, count, percent } from '../format.js';
import { useLive } from '../live.js';
import { PathField } from '../paths.js';
import { JobButtons } from './copies.js';
import { Button, Card, Check, Facts, FormDialog, Input, Loaded, Meter, Pill, Table, toast, useData, useDialog, useForm } from '../ui.js';

const TROUBLE = { failed: 'bad', degraded: 'warn' };
const DANGER = ['fail', 'remove', 'detach', 'remove-key'];
const VERBS = { add: 'Add a disk', grow: 'Spread over more disks', replace: 'Replace a disk', fail: 'Take a disk out', remove: 'Remove a disk', retry: 'Try again', 'add-key': 'Add a key', 'change-key': 'Change a key', 'remove-key': 'Remove a key' };
const OF_MEMBERS = ['fail', 'remove', 'replace']; // offered at each member
const FIRST = ['scrub', 'add', 'grow', 'flush', 'compact']; // what one looks for; the rest is folded away
const DISKS = { by: 'By', device: 'Device', devices: 'Devices' }; // options of actions that are paths
const words = (name) => name.replaceAll('_', ' ');
const verb = (name) => VERBS[name] ?? name[0].toUpperCase() + name.slice(1).replaceAll('-', ' ');

/** file("/srv/a.img") → /srv/a.img */
export const plain = (label) => /^file\("?([^"]*)"?\)$/.exec(label)?.[1] ?? label;

const plainText = (text) => text.replace(/file\("([^"]*)"\)/g, '$1');

/** A stack in a few words: ssd-cache › luks › raid5 › 3 disks. */
export function outline(source) {
  const kinds = source.replace(/"(?:[^"\\]|\\.)*"/g, '""').match(/[a-z][a-z0-9-]*(?=\()/g) ?? [];
  const above = kinds.filter((kind) => kind !== 'file' && kind !== 'pool');
  const disks = kinds.length - above.length;
  return [...above, ...(disks > 1 ? [`${disks} disks`] : disks ? ['a disk'] : [])].join(' › ') || source;
}

/** What a layer counts may be nested, or no number. */
function shown(value) { return typeof value === 'number' ? count(value) : typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value); }

/** An action's options as a form: what is left empty stays as it is. */
function Act({ volume, layer, label, name, action, member, onClose, onDone }) {
  const options = Object.entries(action.options);
  const empty = Object.fromEntries(options.map(([key, option]) => [key, option.type === 'bool' ? option.default === true : String(option.default ?? '')]));
  const form = useForm(member === undefined ? empty : { ...empty, member }, async (values) => {
    const changed = options.filter(([key]) => values[key] !== empty[key] && values[key] !== '');
    const given = Object.fromEntries(changed.map(([key, option]) => [key, /^tuple/.test(option.type) ? `[${values[key]}]` : values[key]]));
    const reply = await post(path('stacks', volume), { layer, action: name, options: given });
    toast(reply.job === null ? plainText(reply.text) || 'It is done.' : 'It has begun: its progress is shown below the layers.');
    onDone();
    onClose();
  });
  const fields = options.filter(([key]) => member === undefined || key !== 'member');
  return html`<${FormDialog} title=${`${verb(name)}: ${member === undefined ? plain(label) : plain(member)}`} form=${form} onClose=${onClose} action=${verb(name)} danger=${DANGER.includes(name)}>
    <p>${action.text}</p>${fields.map(([key, option]) => (option.type === 'bool'
      ? html`<${Check} key=${key} label=${key === 'force' ? 'Though it holds something, which is lost' : words(key)} value=${form.values[key]} onInput=${form.bind(key).onInput} />`
      : DISKS[key] ? html`<${PathField} key=${key} label=${DISKS[key]} help=${key === 'devices' ? 'Paths on the server, with commas between them.' : 'A path on the server, or a stack.'} many=${key === 'devices'} ...${form.bind(key)} required=${option.default === undefined} />`
      : html`<${Input} key=${key} label=${key === 'member' ? 'Disk' : words(key)} help=${option.default === undefined ? '' : 'What is not changed stays.'} ...${form.bind(key)} required=${option.default === undefined} spellcheck="false" autocomplete="off" />`))}
  </${FormDialog}>`;
}

function Move({ name, onClose, onDone }) {
  const form = useForm({ stack: '' }, async ({ stack }) => { await post(`/moves/${encodeURIComponent(name)}`, { stack }); toast('It has begun: hosts go on meanwhile.'); onDone(); onClose(); });
  return html`<${FormDialog} title=${`Move ${name} to other disks`} form=${form} onClose=${onClose} action="Move">
    <p>All is copied while hosts use it; what they write goes to both. When that is done, you let go of the old disks.</p>
    <${PathField} label="Where to" help="A path, or a stack such as raid1(/dev/sdc, /dev/sdd); as large as it is now at least." ...${form.bind('stack')} required /></${FormDialog}>`;
}

function MemberActions({ of, row, onAct }) {
  const out = row.state === 'faulty' || row.state === 'left out' || row.role === 'spare';
  const can = [...(out ? [] : ['replace']), out ? 'remove' : 'fail'].filter((name) => of.actions.includes(name));
  return html`<span class="row">${can.map((name) => html`<${Button} key=${name} kind=${name === 'replace' ? 'small' : 'small danger'} aria-label=${`${verb(name)}: ${plain(row.member)}`} onClick=${() => onAct(name, row.member)}>${{ replace: 'Replace', fail: 'Take out', remove: 'Remove' }[name]}</${Button}>`)}</span>`;
}

function Members({ of, onAct }) {
  return html`<${Table} label=${`Members of ${of.label}`} rows=${[...of.members, ...of['left out'].map((each) => ({ member: each.member, role: 'left out', state: 'left out', 'last error': each.why }))]} keyOf=${(row) => `${row.role} ${row.member}`} columns=${[
    ['Role', (row) => row.role], ['Member', (row) => html`<code class="wrap">${plain(row.member)}</code>${row['last error'] && html`<div class="note wrap">${plainText(row['last error'])}</div>`}`],
    ['State', (row) => html`<${Pill} mood=${{ 'in sync': 'good', rebuilding: 'warn', faulty: 'bad', 'left out': 'bad' }[row.state] ?? ''}>${row.state}</${Pill}>`],
    ['Rebuilt', (row) => (row.rebuilt ? `${percent(...row.rebuilt).toFixed(0)} %` : '–'), { number: true, extra: true }], ['Mended', (row) => count(row.corrected ?? 0), { number: true, extra: true }],
    ['', (row) => onAct && html`<${MemberActions} of=${of} row=${row} onAct=${onAct} />`]]} />`;
}

function Actions({ of, at, onAct }) {
  const all = of.actions.filter((name) => !(of.members && OF_MEMBERS.includes(name)));
  const one = (name) => html`<${Button} key=${name} kind=${DANGER.includes(name) ? 'small danger' : 'small'} aria-label=${`${verb(name)}: ${plain(of.label)}`} onClick=${() => onAct(at, of.label, name)}>${verb(name)}</${Button}>`;
  const first = all.filter((name) => FIRST.includes(name));
  const rest = all.filter((name) => !FIRST.includes(name));
  return html`${first.map(one)}${rest.length > 0 && html`<details class="more"><summary>More</summary><div class="row">${rest.map(one)}</div></details>`}`;
}

const WORK = { rebuild: 'Rebuild', reshape: 'Spreading over more disks', resync: 'Bringing in line' };

/** Whether a layer itself is in trouble, and not only what it stands on. */
function isCulprit(layer) { return layer.health in TROUBLE && (Boolean(layer.members) || !layer.children.some((child) => child.health in TROUBLE)); }

function Layer({ of, at, onAct }) {
  const numbers = Object.entries({ ...of.gauges, ...of.counters });
  return html`<li><div class="row"><b class="wrap">${plain(of.label)}</b><${Pill} state=${of.health} /><span class="note">${bytes(of.size)}</span>${onAct && html`<${Actions} of=${of} at=${at} onAct=${onAct} />`}</div>
    ${of.text && html`<p class=${isCulprit(of) ? 'alert warn' : 'note wrap'}>${plainText(of.text)}</p>`}
    ${of.progress && html`<div class="row between"><span class="note">${WORK[of.work?.kind] ?? ''}</span><span class="note">${percent(...of.progress).toFixed(0)} %</span></div><${Meter} mood="plain" label=${`Progress of ${of.label}`} value=${percent(...of.progress)} />`}
    ${of.members && html`<${Members} of=${of} onAct=${onAct && ((name, member) => onAct(at, of.label, name, member))} />`}
    ${numbers.length > 0 && html`<details><summary>Figures</summary><${Facts} of=${numbers.map(([name, value]) => [words(name), shown(value)])} /></details>`}
    ${of.children.length > 0 && html`<ul class="tree">${of.children.map((child, place) => html`<${Layer} key=${place} of=${child} at=${at ? `${at}/${place}` : String(place)} onAct=${onAct} />`)}</ul>`}</li>`;
}

function Work({ jobs, canCancel }) {
  return html`<${Table} label="Jobs of layers" rows=${[...jobs].reverse().slice(0, 5)} keyOf=${(row) => row.id} columns=${[
    ['Job', (row) => row.kind], ['State', (row) => html`<${Pill} state=${row.state} />`],
    ['Progress', (row) => (row.state === 'running' || row.state === 'paused' ? html`<${Meter} mood="plain" label=${`Progress of ${row.kind}`} value=${percent(row.done, row.total)} />` : html`<span class="wrap">${row.result || '–'}</span>`)],
    ['', (row) => canCancel && html`<${JobButtons} job=${row} />`]]} />`;
}

function Moved({ name, tree, isAdmin, onDone }) {
  if (tree.label !== 'moving') return null;
  const finish = async () => { toast((await remove(`/moves/${encodeURIComponent(name)}`)).text); onDone(); };
  return tree.text === 'in step' ? html`<div class="alert good row between" role="status">All is copied; both have everything.${isAdmin && html`<${Button} kind="small" onClick=${finish}>Let go of the old disks</${Button}>`}</div>`
    : html`<div class="alert warn" role="status">It is being moved: ${percent(...tree.progress).toFixed(0)} % is copied.</div>`;
}

export function Stack({ name, me }) {
  const found = useData(() => get(path('stacks', name)), [name], ['statistics']);
  const { jobs } = useLive('jobs');
  const [dialog, open] = useDialog();
  const isAdmin = me.role === 'admin';
  const mine = jobs.filter((job) => job.volume === name);
  const act = async (layer, label, action, member) => {
    const actions = await get(`${path('stack-actions', name)}?layer=${encodeURIComponent(layer)}`);
    open((close) => html`<${Act} volume=${name} layer=${layer} label=${label} name=${action} action=${actions[action]} member=${member} onClose=${close} onDone=${found.reload} />`);
  };
  const move = isAdmin && html`<button type="button" class="small" onClick=${() => open((close) => html`<${Move} name=${name} onClose=${close} onDone=${found.reload} />`)}>Move to other disks</button>`;
  return html`${dialog}<${Card} title="Layers" actions=${found.data && found.data.label !== 'moving' && move}><${Loaded} of=${found}>${(tree) => html`<div class="stack">
    ${tree.health in TROUBLE && html`<div class=${TROUBLE[tree.health] === 'bad' ? 'alert' : 'alert warn'} role="alert">The layers of ${name} are ${tree.health}: look for the reason below.</div>`}
    <${Moved} name=${name} tree=${tree} isAdmin=${isAdmin} onDone=${found.reload} />
    <ul class="tree"><${Layer} of=${tree} at="" onAct=${isAdmin ? act : null} /></ul>
    ${mine.length > 0 && html`<div><h3>What is being done with them</h3><${Work} jobs=${mine} canCancel=${isOperator(me)} /></div>`}</div>`}</${Loaded}></${Card}>`;
}

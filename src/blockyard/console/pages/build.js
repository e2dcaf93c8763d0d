// A volume on layers, from the disks up: chosen on the left, drawn on the right, made step by step.
import { html, useState } from '../lib.js';
import { get, path, post, put } from '../api.js';
import { bytes, parseSize, percent, plural, sizeOf } from '../format.js';
import { PathField } from '../paths.js';
import { Card, Check, Head, Input, Loaded, Meter, Select, toast, useData, useForm } from '../ui.js';
import { amount, JobButtons } from './copies.js';
import { nameLike } from './targets.js';

// Level → name, least number of disks, what may fail, the part of the smallest disk times n that is left.
const LEVELS = {
  single: ['One disk', 1, () => 'Nothing protects it.', () => 1, 1],
  raid1: ['Mirror', 2, (n) => `Each disk is a copy: ${plural(n - 1, 'disk')} may fail.`, () => 1],
  raid5: ['RAID 5', 3, () => 'One disk may fail.', (n) => n - 1],
  raid6: ['RAID 6', 4, () => 'Two disks may fail.', (n) => n - 2],
  raid10: ['RAID 10', 2, () => 'Two copies, spread: one disk may fail.', (n) => n / 2],
  raid0: ['Stripe', 2, () => 'Fast; if one disk fails, all is lost.', (n) => n],
  concat: ['One after the other', 2, () => 'If one disk fails, all is lost.', (n) => n],
};
const CHUNKS = ['16K', '32K', '64K', '128K', '256K', '512K', '1M'];
const FIRST = {
  level: 'raid1', chunk: '64K', spares: '0', journal: false, region: '', force: false, fileSize: '100G', lock: 'none', passphrase: '', again: '', keyFile: '',
  packed: false, packedSize: '', cache: 'none', ram: '1G', fast: '', fastSize: '10G', mode: 'through', name: '', show: true,
};

const ALL = 1e4; // all layers are made

const quoted = (text) => JSON.stringify(text);
const member = (disk) => (disk.kind === 'pool' ? `pool(${quoted(disk.where)})` : quoted(disk.where));
const isArray = (values) => /^raid/.test(values.level);

/** The layers of what is wanted, from the disks up: how each is written around what is below, and how it is made. */
function layersOf(values, disks) {
  const parts = disks.map(member);
  const count = parts.length - (isArray(values) ? Number(values.spares) : 0);
  const layers = [];
  const force = values.force ? { force: true } : {};
  if (values.level === 'concat') layers.push({ title: 'One after the other', note: plural(parts.length, 'disk'), write: () => `concat(${parts.join(', ')})` });
  else if (values.level !== 'single') {
    const options = { ...force, ...(Number(values.spares) ? { spares: Number(values.spares) } : {}), ...(values.level !== 'raid1' ? { chunk: values.chunk } : {}), ...(values.journal && /[56]$/.test(values.level) ? { journal: true } : {}), ...(values.region ? { region: values.region } : {}) };
    layers.push({ title: LEVELS[values.level][0], note: `${plural(count, 'disk')}${Number(values.spares) ? `, ${plural(Number(values.spares), 'spare')}` : ''}`, kind: values.level, options, write: () => `${values.level}(${parts.join(', ')})`, on: () => parts });
  }
  if (values.lock !== 'none') {
    const key = values.lock === 'file' ? { key_file: values.keyFile } : {};
    layers.push({ title: 'Encrypted', note: values.lock === 'file' ? `the key is in ${values.keyFile || '…'}` : 'the server keeps the passphrase', kind: 'luks', options: { ...force, ...key }, secret: values.lock === 'passphrase' ? values.passphrase : null });
  }
  if (values.packed) layers.push({ title: 'Compressed', note: values.packedSize ? `${values.packedSize} for hosts` : '', kind: 'compressed', options: { ...force, size: values.packedSize } });
  if (values.cache === 'ram') layers.push({ title: 'Cache in memory', note: values.ram, write: (below) => `cache(ram=${values.ram}, ${below})` });
  if (values.cache === 'ssd') layers.push({ title: 'Cache on a fast disk', note: values.fast, kind: 'ssd-cache', options: force, on: (below) => [below, quoted(values.fast)], write: (below) => `ssd-cache(mode=${values.mode}, ${below}, ${quoted(values.fast)})` });
  return { layers, bottom: parts[0] ?? '' };
}

/** Until a job is over; `tell` gets it now and then. */
async function over(id, tell) {
  for (;;) {
    const job = await get(path('jobs', id));
    if (job.state === 'done') return;
    if (job.state !== 'running') throw new Error(job.result || 'It was stopped, and nothing is left of this layer.');
    tell(job);
    await new Promise((resolve) => { setTimeout(resolve, 500); });
  }
}

/** Make one layer after the other; `done` has what was made before something went wrong, so that one can go on. */
async function build(values, disks, done, tell) {
  const { layers, bottom } = layersOf(values, disks);
  let below = bottom;
  for (const [at, layer] of layers.entries()) {
    tell(at);
    if (!layer.kind) { below = layer.write(below); continue; }
    const on = layer.on ? layer.on(below) : [below];
    const key = JSON.stringify([layer.kind, on, layer.options]);
    if (!done.has(key)) {
      const size = layer.kind === 'ssd-cache' ? sizeOf(values.fastSize) : sizeOf(values.fileSize);
      const made = await post('/layers', { kind: layer.kind, on, options: layer.options, size, ...(layer.secret ? { passphrase: layer.secret } : {}) });
      if (made.job) await over(made.job, (job) => tell(at, job));
      done.set(key, made);
    }
    below = layer.write ? layer.write(below) : done.get(key).stack;
  }
  return below;
}

function Disk({ at, disk, volumes, size, onChange, onRemove }) {
  const kinds = [['file', 'A file or device'], ...(volumes.length ? [['pool', 'A volume of a pool']] : [])];
  const other = (kind) => onChange({ kind, where: kind === 'pool' ? volumes[0].id : '' });
  return html`<div class="disk"><${Select} label=${`Disk ${at + 1}`} options=${kinds} value=${disk.kind} onInput=${other} />
    ${disk.kind === 'file' && html`<${PathField} label="Path on the server" create="file" size=${size} value=${disk.where} onInput=${(where) => onChange({ kind: 'file', where })} onPick=${(entry) => entry && onChange({ kind: 'file', where: entry.path, size: entry.size })} required pattern="/.+" placeholder=${`/srv/disks/${at + 1}.img`} />`}
    ${disk.kind === 'pool' && html`<${Select} label="Volume" options=${volumes.map((each) => [each.id, `${each.id}, ${bytes(each.size)}`])} value=${disk.where} onInput=${(where) => onChange({ ...disk, where })} />`}
    <button type="button" class="quiet" aria-label=${`Leave out disk ${at + 1}`} onClick=${onRemove} disabled=${!onRemove}>Remove</button></div>`;
}

function Levels({ value, count, onChange }) {
  return html`<fieldset class="choices"><legend>How the disks are put together</legend>${Object.entries(LEVELS).map(([key, [name, least, text, , most]]) => {
    const fits = count >= least && count <= (most ?? 1e4);
    return html`<label key=${key} class=${key === value ? 'choice chosen' : 'choice'}><input type="radio" name="level" value=${key} checked=${key === value} disabled=${!fits} onInput=${() => onChange(key)} />
      <span><b>${name}</b><span class="help">${fits ? text(count) : most ? 'for one disk alone' : `needs ${least} disks`}</span></span></label>`; })}</fieldset>`;
}

/** What is being put together, drawn as hosts see it: the top first. */
function Cake({ values, disks, active }) {
  const { layers } = layersOf(values, disks);
  return html`<ol class="cake" aria-label="Layers, the top first">
    <li class="top"><b>${values.name || 'The volume'}</b><span>${values.show ? 'shown to hosts by a target' : 'shown to nobody yet'}</span></li>
    ${layers.map((layer, at) => ({ layer, at })).reverse().map(({ layer, at }) => html`<li key=${layer.title} class=${at === active ? 'now' : at < active ? 'made' : ''}><b>${layer.title}</b><span>${layer.note}</span></li>`)}
    <li class="disks">${disks.map((disk, at) => html`<span key=${at}>${disk.where.split('/').pop() || `disk ${at + 1}`}</span>`)}</li></ol>`;
}

const isMissing = (disk) => disk.kind === 'file' && disk.size === undefined && !disk.where.startsWith('/dev/');

/** That of one which is there is known when it was chosen. */
function sizeOfDisk(disk, values, volumes) {
  return disk.kind === 'pool' ? volumes.find((each) => each.id === disk.where)?.size : disk.size ?? parseSize(values.fileSize);
}

function usable(values, disks, volumes) {
  const sizes = disks.map((disk) => sizeOfDisk(disk, values, volumes));
  if (sizes.some((each) => !(each > 0))) return null;
  if (values.packed && parseSize(values.packedSize) > 0) return parseSize(values.packedSize);
  if (values.level === 'concat') return sizes.reduce((a, b) => a + b, 0);
  return Math.min(...sizes) * LEVELS[values.level][3](disks.length - (isArray(values) ? Number(values.spares) : 0));
}

function Form({ volumes, targets, taken }) {
  const [disks, setDisks] = useState([{ kind: 'file', where: '' }, { kind: 'file', where: '' }]);
  const [done] = useState(new Map());
  const [active, setActive] = useState(null);
  const [job, setJob] = useState(null); // that makes it, where that takes long
  const form = useForm(FIRST, async (values) => {
    if (values.lock === 'passphrase' && values.passphrase !== values.again) throw new Error('The two passphrases are not the same.');
    if (taken.includes(values.name)) throw new Error(`There is a volume ${values.name} already.`);
    try {
      const stack = await build(values, disks, done, (at, making) => { setActive(at); setJob(making ?? null); });
      setActive(ALL);
      setJob(null);
      await put(path('volumes', values.name), stack.startsWith('"') ? { path: JSON.parse(stack), ...(isMissing(disks[0]) ? { size: sizeOf(values.fileSize) } : {}) } : { stack });
    } finally { setActive(null); setJob(null); }
    if (values.show) await put(path('targets', nameLike(targets, values.name)), { luns: { 0: values.name } });
    toast(`The volume ${values.name} is there.`);
    location.hash = values.show ? `#/targets/${encodeURIComponent(nameLike(targets, values.name))}` : `#/volumes/${encodeURIComponent(values.name)}`;
  });
  const { values, bind } = form;
  const put1 = (change) => form.set((before) => ({ ...before, ...change }));
  const resize = (next) => {
    setDisks(next);
    const [, least, , , most] = LEVELS[values.level];
    if (next.length < least || next.length > (most ?? 1e4)) put1({ level: next.length === 1 ? 'single' : 'raid1' });
  };
  const size = usable(values, disks, volumes);
  return html`<form class="grid" onSubmit=${form.submit}><div class="span8 stack"><${Card} title="1. The disks"><div class="stack">
      ${disks.map((disk, at) => html`<${Disk} key=${at} at=${at} disk=${disk} volumes=${volumes} size=${bind('fileSize')} onChange=${(next) => setDisks(disks.map((each, other) => (other === at ? next : each)))} onRemove=${disks.length > 1 ? () => resize(disks.filter((_, other) => other !== at)) : null} />`)}
      <div><button type="button" class="small" onClick=${() => resize([...disks, { kind: 'file', where: '' }])}>Add a disk</button></div>
      ${disks.some(isMissing) && html`<${Input} label="Size of files that are missing" help="They are made, and take space as they are written to." ...${bind('fileSize')} required />`}
      <${Levels} value=${values.level} count=${disks.length} onChange=${(level) => put1({ level })} />
      ${isArray(values) && values.level !== 'raid0' && html`<${Select} label="Spares" help="So many of the disks, the last ones, wait to take the place of one that fails." options=${['0', '1', '2'].filter((each) => disks.length - Number(each) >= LEVELS[values.level][1])} ...${bind('spares')} />`}
      ${isArray(values) && html`<details class="more"><summary>More settings</summary><div class="stack"><div class="inline">${values.level !== 'raid1' && html`<${Select} label="Chunk" help="What goes to one disk before the next." options=${CHUNKS} ...${bind('chunk')} />`}
        ${values.level !== 'raid0' && html`<${Select} label="Region of the bitmap" help="What is compared for each write that a crash has cut off." options=${[['', 'what suits'], '1M', '4M', '16M', '64M']} ...${bind('region')} />`}</div>
        ${/[56]$/.test(values.level) && html`<${Check} label="Every write goes through the journal" help="Slower; without it, only writes that lack a disk do." value=${values.journal} onInput=${(journal) => put1({ journal })} />`}</div></details>`}
      <${Check} label="Use disks that hold something" help="What is on them is lost." value=${values.force} onInput=${(force) => put1({ force })} /></div></${Card}>
    <${Card} title="2. What else it does"><div class="stack">
      <${Select} label="Encryption" options=${[['none', 'None'], ['passphrase', 'With a passphrase, which the server keeps'], ['file', 'With a key in a file on the server']]} ...${bind('lock')} />
      ${values.lock === 'passphrase' && html`<div class="inline"><${Input} label="Passphrase" type="password" help="To be able to open the disks elsewhere, keep it yourself, too." ...${bind('passphrase')} required autocomplete="new-password" /><${Input} label="Passphrase again" type="password" ...${bind('again')} required autocomplete="new-password" /></div>`}
      ${values.lock === 'file' && html`<${PathField} label="Key file" help="It has to be there whenever the server starts." kinds=${['file']} reads ...${bind('keyFile')} required pattern="/.+" />`}
      <${Check} label="Compressed" help="For what is seldom written: it takes less room, and more time." value=${values.packed} onInput=${(packed) => put1({ packed })} />
      ${values.packed && html`<${Input} label="Size for hosts" help="It may be larger than the disks are." ...${bind('packedSize')} required />`}
      <${Select} label="Cache" options=${[['none', 'None'], ['ram', 'In memory'], ['ssd', 'On a fast disk']]} ...${bind('cache')} />
      ${values.cache === 'ram' && html`<${Input} label="Memory" ...${bind('ram')} required />`}
      ${values.cache === 'ssd' && html`<div class="inline"><${PathField} label="Fast disk" help="A file or block device; it is for this alone." create="file" size=${bind('fastSize')} ...${bind('fast')} required pattern="/.+" /><${Input} label="Its size, if it is a file that is missing" ...${bind('fastSize')} />
        <${Select} label="Writes" options=${[['through', 'go to the disks at once'], ['back', 'go to the cache first']]} ...${bind('mode')} /></div>`}</div></${Card}>
    <${Card} title="3. For hosts"><div class="stack"><${Input} label="Name of the volume" help="Letters, digits, dots, dashes." ...${bind('name')} required />
      <${Check} label="Make a target that shows it" value=${values.show} onInput=${(show) => put1({ show })} />
      ${form.problem && html`<div class="alert" role="alert">${form.problem.message}${done.size > 0 && ' What was made already stays, and is used when you go on.'}</div>`}
      <div><button type="submit" class="primary" disabled=${form.busy}>${form.busy ? 'One moment …' : 'Make the volume'}</button></div></div></${Card}></div>
    <div class="span4 beside"><${Card} title="What it becomes"><div class="stack"><${Cake} values=${values} disks=${disks} active=${active} />
      <p class="note" role="status">${form.busy && active !== null ? active === ALL ? 'It is made, and being opened …' : `Being made: ${layersOf(values, disks).layers[active].title} …` : size ? html`About <b>${bytes(size)}</b> for hosts. ${LEVELS[values.level][2](disks.length - Number(isArray(values) ? values.spares : 0))}` : 'Name the disks, and it shows what comes out.'}</p>
      ${job && html`<div class="stack"><${Meter} mood="plain" label="Progress of the layer" value=${percent(job.done, job.total)} /><div class="row between"><span class="note">${amount(job, job.done)} of ${amount(job, job.total)}</span><${JobButtons} job=${job} /></div></div>`}</div></${Card}></div></form>`;
}

export function Build({ me }) {
  const found = useData(async () => {
    const [pools, volumes, targets] = await Promise.all([get('/pools'), get('/volumes'), get('/targets')]);
    const lists = await Promise.all(pools.map((pool) => get(path('pools', pool.name, 'volumes'))));
    const used = new Set(volumes.filter((each) => each.pool).map((each) => `${each.pool}/${each.volume}`));
    const inPools = pools.flatMap((pool, at) => lists[at].map((each) => ({ id: `${pool.name}/${each.name}`, size: each.size }))).filter((each) => !used.has(each.id));
    return { targets, volumes: inPools, taken: volumes.map((each) => each.name) };
  }, [], []);
  return html`<${Head} title="New volume on layers" crumbs=${[['Volumes', '#/volumes']]} sub="Disks put together, encrypted, compressed or cached, as one volume." />
    ${me.role !== 'admin' ? html`<div class="alert warn">Only an admin can make volumes of disks.</div>` : html`<${Loaded} of=${found}>${(all) => html`<${Form} ...${all} />`}</${Loaded}>`}`;
}

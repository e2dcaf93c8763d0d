// Pools: the space that thin volumes share.
import { html } from '../lib.js';
import { edit, get, path, post, put } from '../api.js';
import { bytes, sizeOf, percent, plural } from '../format.js';
import { History } from '../history.js';
import { useLive } from '../live.js';
import { PathField } from '../paths.js';
import { Button, Card, Check, DeleteDialog, Facts, FormDialog, Head, Input, Loaded, Meter, Pill, Table, toast, useData, useDialog, useForm } from '../ui.js';

export function NewPool({ onClose, onDone }) {
  const form = useForm({ name: '', directory: '', size: '100G', exported: true }, async ({ name, directory, size, exported }) => {
    await post('/pools', { name, directory, create: true, export: exported, size: sizeOf(size) });
    toast(`The pool ${name} is there.`); onDone(); onClose();
  });
  return html`<${FormDialog} title="New pool" form=${form} onClose=${onClose} action="Make it">
    <${Input} label="Name" ...${form.bind('name')} required /><${PathField} label="Directory on the server" help="It is made when it is missing. Data and metadata go there." kinds=${['directory']} create="directory" ...${form.bind('directory')} required />
    <${Input} label="Size" help="It may grow to this; more can be added later. The file takes space only as it is filled." ...${form.bind('size')} />
    <${Check} label="Show each volume as a target of its own" help="New volumes can be used at once. Without it you decide which target shows what." ...${form.bind('exported')} /></${FormDialog}>`;
}

export function Pools({ me }) {
  const pools = useData(() => get('/pools'));
  const [dialog, open] = useDialog();
  return html`<${Head} title="Pools" sub="Space that thin volumes, their snapshots and clones share.">${me.role === 'admin' && html`<button type="button" class="primary" onClick=${() => open((close) => html`<${NewPool} onClose=${close} onDone=${pools.reload} />`)}>New pool</button>`}</${Head}>${dialog}
    <${Card}><${Loaded} of=${pools}>${(list) => html`<${Table} label="Pools" rows=${list} keyOf=${(row) => row.name} columns=${[
      ['Name', (row) => html`<a href=${`#/pools/${encodeURIComponent(row.name)}`}>${row.name}</a>`], ['Health', (row) => html`<${Pill} state=${row.health} />`],
      ['Used', (row) => row.space && html`<${Meter} label=${`Space used in ${row.name}`} value=${percent(row.space.used, row.space.size)} />`], ['Free', (row) => bytes(row.space?.free), { number: true }],
      ['Volumes', (row) => row.volumes, { number: true, extra: true }], ['Snapshots', (row) => row.snapshots, { number: true, extra: true }]]}
      empty="No pool yet. A pool turns a directory or disks into thin volumes with snapshots." />`}</${Loaded}></${Card}>`;
}

function NewVolume({ pool, onClose, onDone }) {
  const form = useForm({ name: '', size: '10G', checksums: false }, async ({ name, size, checksums }) => {
    await post(path('pools', pool, 'volumes'), { name, size: sizeOf(size), checksums });
    toast(`The volume ${name} is there.`); onDone(); onClose();
  });
  return html`<${FormDialog} title=${`New volume in ${pool}`} form=${form} onClose=${onClose} action="Make it"><${Input} label="Name" ...${form.bind('name')} required /><${Input} label="Size" help="Like 10G or 2T: space is taken only as it is written." ...${form.bind('size')} required />
    <${Check} label="Checksums" help="Damage on the disks beneath is noticed on every read." ...${form.bind('checksums')} /></${FormDialog}>`;
}

function AddMember({ pool, onClose, onDone }) {
  const form = useForm({ path: '', size: '' }, async ({ path: where, size }) => { await post(path('pools', pool, 'members'), { path: where, ...(size ? { size: sizeOf(size) } : {}) }); toast('The pool has grown.'); onDone(); onClose(); });
  return html`<${FormDialog} title=${`More space for ${pool}`} form=${form} onClose=${onClose} action="Add"><${PathField} label="File, directory or block device" kinds=${['file', 'device', 'directory']} create="file" size=${form.bind('size')} ...${form.bind('path')} required /><${Input} label="Size" help="Of a file that is made; empty: all that is there." ...${form.bind('size')} /></${FormDialog}>`;
}

function Thresholds({ pool, onClose, onDone }) {
  const form = useForm({ soft: pool.soft ?? '', hard: pool.hard ?? '' }, async ({ soft, hard }) => { await put(path('pools', pool.name, 'thresholds'), { soft: soft || 'none', hard: hard || 'none' }); toast('Changed.'); onDone(); onClose(); });
  return html`<${FormDialog} title="When to warn" form=${form} onClose=${onClose} action="Save"><${Input} label="First warning" help="Like 80% or 10G left; “none” for none." ...${form.bind('soft')} /><${Input} label="Second warning" ...${form.bind('hard')} /></${FormDialog}>`;
}

export function PoolPage({ name, me }) {
  const where = path('pools', name);
  const found = useData(async () => { const [pool, volumes] = await Promise.all([get(where), get(`${where}/volumes`)]); return { pool, volumes }; }, [where], ['configuration', 'jobs', 'event']);
  const { jobs } = useLive('jobs');
  const [dialog, open] = useDialog();
  const admin = me.role === 'admin';
  const start = (what, body) => async () => { await post(`${where}/${what}`, body); toast('It has begun: see the jobs.'); };
  return html`<${Loaded} of=${found}>${({ pool, volumes }) => html`
    <${Head} title=${name} crumbs=${[['Pools', '#/pools']]} sub=${pool.directory}>
      ${me.role !== 'viewer' && html`<button type="button" class="primary" onClick=${() => open((close) => html`<${NewVolume} pool=${name} onClose=${close} onDone=${found.reload} />`)}>New volume</button>
        <${Button} onClick=${start('check', {})}>Check</${Button}><${Button} onClick=${start('scrub', {})}>Scrub</${Button}>`}
      ${admin && html`<button type="button" class="danger" onClick=${() => open((close) => html`<${DeleteDialog} what="pool" name=${name} text="It is no longer served. Its data stays in its directory, so that it can be served again." onClose=${close} onDelete=${async () => { await edit('DELETE', where); location.hash = '#/pools'; }} />`)}>Remove</button>`}
    </${Head}>${dialog}
    <div class="grid"><${Card} title="Space" span="span7" actions=${admin && html`<button type="button" class="small" onClick=${() => open((close) => html`<${AddMember} pool=${name} onClose=${close} onDone=${found.reload} />`)}>Add space</button><button type="button" class="small" onClick=${() => open((close) => html`<${Thresholds} pool=${pool} onClose=${close} onDone=${found.reload} />`)}>Warnings</button>`}>
        ${pool.space ? html`<div class="stack"><${Meter} label="Space used" value=${percent(pool.space.used, pool.space.size)} second=${percent(pool.space.reserved, pool.space.size)} />
          <${Facts} of=${[['Used', `${bytes(pool.space.used)} of ${bytes(pool.space.size)}`], ['Free', bytes(pool.space.free)], ['Promised to volumes', `${bytes(pool.space.provisioned)} (${pool.space.size ? (pool.space.provisioned / pool.space.size).toFixed(1) : '–'} × what there is)`], pool.space.reserved > 0 && ['Reserved', bytes(pool.space.reserved)], pool.space.freeing > 0 && ['Being freed', bytes(pool.space.freeing)],
            pool.space.lacking > 0 && ['Lacking beneath', html`<${Pill} mood="warn">${bytes(pool.space.lacking)}</${Pill}>`], ['Warnings at', `${pool.soft}, ${pool.hard}`]]} /></div>` : html`<div class="alert">${pool.problem}</div>`}</${Card}>
      <${Card} title="Health" span="span5"><div class="stack"><${Pill} state=${pool.health} />${pool.problem && html`<p>${pool.problem}</p>`}
        <${Facts} of=${pool.members.map((each) => [`Member ${each.number}`, html`<span class="wrap">${each.path}</span> ${bytes(each.size)}`])} />
        ${jobs.filter((job) => job.pool === name && job.state === 'running').map((job) => html`<div key=${job.id}><p>${job.kind} of ${job.subject}</p><${Meter} mood="plain" label=${job.kind} value=${percent(job.done, job.total)} /></div>`)}</div></${Card}>
      <${History} series=${`pool:${name}`} />
      <${Card} title="Volumes" note=${plural(volumes.length, 'volume')}><${Table} label="Volumes of the pool" rows=${volumes} keyOf=${(row) => row.name} columns=${[
        ['Name', (row) => html`<a href=${`#/pools/${encodeURIComponent(name)}/volumes/${encodeURIComponent(row.name)}`}>${row.name}</a>`], ['Size', (row) => bytes(row.size), { number: true }], ['Takes', (row) => bytes(row.used), { number: true }],
        ['Snapshots', (row) => row.snapshots, { number: true }], ['Clone of', (row) => row.origin ?? '', { extra: true }], ['Hosts', (row) => row.initiators.length || '–', { number: true, extra: true }]]} empty="No volume yet." /></${Card}>
    </div>`}</${Loaded}>`;
}

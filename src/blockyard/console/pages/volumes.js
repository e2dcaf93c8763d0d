// Volumes: what LUNs are made of.
import { html } from '../lib.js';
import { get, path, post, put } from '../api.js';
import { bytes, count, sizeOf } from '../format.js';
import { useLive } from '../live.js';
import { PathField } from '../paths.js';
import { outline } from './stack.js';
import { FormDialog, Head, Card, Input, Loaded, Pill, Select, Table, toast, useData, useDialog, useForm } from '../ui.js';

const IMAGES = ['vhd', 'vhdx', 'qcow2', 'vmdk', 'vdi'];
const FORMATS = ['raw', ...IMAGES, 'auto'];

/** Where a volume's page is: of one in a pool, that of the pool. */
export function pageOf(volume) {
  return volume.pool && !volume.snapshot ? `#/pools/${encodeURIComponent(volume.pool)}/volumes/${encodeURIComponent(volume.volume)}` : `#/volumes/${encodeURIComponent(volume.name)}`;
}

function Rate({ name }) {
  const { statistics } = useLive('statistics');
  const rates = statistics?.volumes[name];
  return rates ? html`${count(rates.read_ops + rates.write_ops)}` : '–';
}

export function NewVolume({ pools, onClose, onDone }) {
  const kinds = [...pools.map((pool) => [`pool ${pool.name}`, `Thin volume in the pool ${pool.name}`]), ['file', 'File or block device'], ['stack', 'Stack of layers']];
  const form = useForm({ where: kinds[0][0], name: '', size: '10G', path: '', stack: '', format: 'raw' }, async ({ where, name, size, path: file, stack, format }) => {
    if (where.startsWith('pool ')) {
      await post(path('pools', where.slice(5), 'volumes'), { name, size: sizeOf(size) });
    } else if (where === 'file') {
      await put(path('volumes', name), { path: file, ...(size ? { size } : {}), format });
    } else {
      await put(path('volumes', name), { stack });
    }
    toast(`The volume ${name} is there.`);
    onDone();
    onClose();
  });
  const { where } = form.values;
  const pick = (entry) => { if (entry) form.set((before) => ({ ...before, size: '', format: IMAGES.includes(entry.format) ? entry.format : 'raw' })); };
  return html`<${FormDialog} title="New volume" form=${form} onClose=${onClose} action="Make it">
    <${Select} label="What it is made of" options=${kinds} ...${form.bind('where')} />
    <${Input} label="Name" help="Letters, digits, dots, dashes." ...${form.bind('name')} required />
    ${where === 'file' && html`<${PathField} label="Path on the server" help="A file is made when it is missing." create="file" size=${form.bind('size')} onPick=${pick} ...${form.bind('path')} required />`}
    ${where === 'stack' && html`<${Input} label="Stack" help=${html`For example cache(ram=1G, raid1(/srv/a.img, /srv/b.img)). <a href="#/build">Put one together</a>`} ...${form.bind('stack')} required />`}
    ${where !== 'stack' && html`<${Input} label="Size" help=${where === 'file' ? 'Like 10G; empty for what is there already.' : 'Like 10G or 2T. Space is taken only as it is written.'} ...${form.bind('size')} />`}
    ${where === 'file' && html`<${Select} label="Format" options=${FORMATS} ...${form.bind('format')} />`}
  </${FormDialog}>`;
}

export function Volumes({ me }) {
  const volumes = useData(() => get('/volumes'));
  const pools = useData(async () => (me.role === 'admin' ? get('/pools') : []));
  const [dialog, open] = useDialog();
  return html`<${Head} title="Volumes" sub="What hosts see as disks.">
      ${me.role === 'admin' && html`<a class="button" href="#/build">New volume on layers</a>`}
      ${me.role === 'admin' && pools.data && html`<button type="button" class="primary" onClick=${() => open((close) => html`<${NewVolume} pools=${pools.data} onClose=${close} onDone=${volumes.reload} />`)}>New volume</button>`}</${Head}>
    ${dialog}<${Card}><${Loaded} of=${volumes}>${(list) => html`<${Table} label="Volumes" rows=${list} keyOf=${(row) => row.name} columns=${[
      ['Name', (row) => html`<a class="wrap" href=${pageOf(row)}>${row.name}</a>`],
      ['Made of', (row) => html`<span class="wrap" title=${row.source}>${row.kind === 'stack' ? outline(row.source) : row.source}</span>`, { extra: true }],
      ['Size', (row) => bytes(row.size), { number: true }],
      ['Commands/s', (row) => html`<${Rate} name=${row.name} />`, { number: true }],
      ['Shown by', (row) => (row.targets.length ? row.targets.map((name) => html`<a class="wrap" href=${`#/targets/${encodeURIComponent(name)}`}>${name.split(':').pop()}</a> `) : html`<${Pill} mood="warn">no target</${Pill}>`), { extra: true }],
      ['', (row) => html`<span class="row">${row.health && row.health !== 'ok' && html`<${Pill} state=${row.health} />`}${row.read_only && html`<${Pill}>read only</${Pill}>`}${row.counters?.errors > 0 && html`<${Pill} mood="warn">${row.counters.errors} errors</${Pill}>`}</span>`],
    ]} empty=${me.role === 'admin' ? html`No volumes yet. <a href="#/new">Make a disk for a host</a>` : 'No volumes yet.'} />`}</${Loaded}></${Card}>`;
}

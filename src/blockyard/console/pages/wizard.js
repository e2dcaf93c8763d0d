// From nothing to a disk that a host can use: pool, volume, target, and lines to paste.
import { html, useState } from '../lib.js';
import { get, path, post, put } from '../api.js';
import { sizeOf } from '../format.js';
import { PathField } from '../paths.js';
import { Card, Check, Head, Input, Loaded, Select, toast, useData, useForm } from '../ui.js';
import { Connect, nameLike } from './targets.js';

const NEW = ' new';

/** Make what is missing, in order; what is there already when one comes again after an error is used. */
async function make(values, pools, targets) {
  let pool = values.pool;
  if (pool === NEW) {
    pool = values.poolName;
    if (!pools.some((each) => each.name === pool)) await post('/pools', { name: pool, directory: values.directory, create: true, size: sizeOf(values.poolSize) });
  }
  const size = sizeOf(values.size);
  const volumes = await get(path('pools', pool, 'volumes'));
  if (!volumes.some((each) => each.name === values.name)) await post(path('pools', pool, 'volumes'), { name: values.name, size });
  if (values.protect) await put(`${path('pools', pool, 'volumes', values.name)}/cdp`, { window: 86400 });
  const volume = `${pool}/${values.name}`;
  const target = nameLike(targets, values.name);
  const shown = (await get('/volumes')).find((each) => each.pool === pool && each.volume === values.name && !each.snapshot);
  if (shown?.targets.length) return shown.targets[0];
  if (!shown) await put(path('volumes', volume), { pool, volume: values.name });
  const access = values.host ? [{ initiators: [values.host.trim()] }] : [];
  await put(path('targets', target), { luns: { 0: shown?.name ?? volume }, access });
  return target;
}

function Form({ pools, targets, onDone }) {
  const [first] = useState(pools[0]?.name ?? NEW);
  const form = useForm({ pool: first, poolName: 'main', directory: '', poolSize: '100G', name: '', size: '10G', host: '', protect: false }, async (values) => { const name = await make(values, pools, targets); toast('The disk is there.'); onDone(name); });
  const { pool } = form.values;
  return html`<${Card}><form class="stack" onSubmit=${form.submit}>
    <h2>1. Where its data goes</h2><${Select} label="Pool" options=${[...pools.map((each) => [each.name, each.name]), [NEW, 'A new pool']]} ...${form.bind('pool')} />
    ${pool === NEW && html`<div class="inline"><${Input} label="Name of the pool" ...${form.bind('poolName')} required /><${PathField} label="Directory on the server" help="Like /srv/blockyard; it is made when it is missing." kinds=${['directory']} create="directory" ...${form.bind('directory')} required /></div>
      <${Input} label="Size of the pool" help="It may grow to this; more can be added later. The file takes space only as it is filled." ...${form.bind('poolSize')} required />`}
    <h2>2. The disk</h2><div class="inline"><${Input} label="Name of the disk" help="Letters, digits, dashes." ...${form.bind('name')} required /><${Input} label="Size" help="Space is taken only as it is written." ...${form.bind('size')} required /></div>
    <${Check} label="Protect every write" help="For a day, any moment can be opened again." ...${form.bind('protect')} />
    <h2>3. The host</h2><${Input} label="Name of the initiator" help="The host's iSCSI name: on Linux in /etc/iscsi/initiatorname.iscsi. Empty: every host that reaches this server." ...${form.bind('host')} spellcheck="false" />
    ${form.problem && html`<div class="alert" role="alert">${form.problem.message}</div>`}
    <div><button type="submit" class="primary" disabled=${form.busy}>${form.busy ? 'One moment …' : 'Make the disk'}</button></div></form></${Card}>`;
}

function Done({ name }) {
  const target = useData(() => get(path('targets', name)), [name]);
  return html`<${Loaded} of=${target}>${(found) => html`<div class="stack"><div class="alert good" role="status">The disk is there. Paste these lines on the host, and it appears.</div>
    <${Card} title="On the host"><${Connect} target=${found} /></${Card}>
    <div class="actions"><a class="button" href=${`#/targets/${encodeURIComponent(name)}`}>The target</a><a class="button" href="#/">Dashboard</a></div></div>`}</${Loaded}>`;
}

export function Wizard({ me }) {
  const found = useData(async () => { const [pools, targets] = await Promise.all([get('/pools'), get('/targets')]); return { pools, targets }; }, [], []);
  const [name, set] = useState('');
  return html`<${Head} title="New disk for a host" sub="A thin volume with a target of its own, and what to type on the host." />
    ${me.role !== 'admin' ? html`<div class="alert warn">Only an admin can make targets.</div>` : name ? html`<${Done} name=${name} />` : html`<${Loaded} of=${found}>${({ pools, targets }) => html`<${Form} pools=${pools} targets=${targets} onDone=${set} />`}</${Loaded}>`}`;
}

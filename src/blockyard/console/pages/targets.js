// Targets: what they show under which LUNs, to whom, by which portals.
import { html, useState } from '../lib.js';
import { edit, get, path, put } from '../api.js';
import { instructions, reachable } from '../connect.js';
import { plural } from '../format.js';
import { Button, Card, DeleteDialog, Facts, FormDialog, Head, Input, Loaded, Paste, Pill, Select, Table, Tabs, toast, useData, useDialog, useForm } from '../ui.js';

export function Connect({ target }) {
  const portal = reachable(target.portal_groups[0]?.portals[0] ?? '');
  const all = instructions(target.name, portal);
  const [kind, set] = useState(all[0][0]);
  return html`<div><${Tabs} names=${all.map(([name]) => name)} current=${kind} onChange=${set} /><${Paste} label=${`Lines for ${kind}`} text=${all.find(([name]) => name === kind)[1]} /></div>`;
}

/** A name for a new target like those that there are. */
export function nameLike(targets, suffix) {
  const base = targets[0]?.name.split(':')[0] ?? `iqn.${new Date().getFullYear()}-01.org.blockyard`;
  return `${base}:${suffix.toLowerCase().replace(/[^a-z0-9.-]+/g, '-')}`;
}

function NewTarget({ targets, volumes, onClose, onDone }) {
  const form = useForm({ name: nameLike(targets, 'disk'), alias: '', volume: volumes[0]?.name ?? '' }, async ({ name, alias, volume }) => {
    await put(path('targets', name), { luns: volume ? { 0: volume } : {}, ...(alias ? { alias } : {}) });
    toast('The target is there.'); onDone(); onClose(); location.hash = `#/targets/${encodeURIComponent(name)}`;
  });
  return html`<${FormDialog} title="New target" form=${form} onClose=${onClose} action="Make it"><${Input} label="Name" help="iqn.YYYY-MM.reversed.domain:something (RFC 7143)" ...${form.bind('name')} required /><${Input} label="Alias" help="For people; shown by some hosts." ...${form.bind('alias')} />
    <${Select} label="Volume under LUN 0" options=${[['', 'none yet'], ...volumes.map((each) => [each.name, `${each.name} (${each.source})`])]} ...${form.bind('volume')} /></${FormDialog}>`;
}

export function Targets({ me }) {
  const found = useData(async () => { const [targets, volumes] = await Promise.all([get('/targets'), get('/volumes')]); return { targets, volumes }; }, [], ['configuration', 'sessions']);
  const [dialog, open] = useDialog();
  return html`<${Loaded} of=${found}>${({ targets, volumes }) => html`<${Head} title="Targets" sub="What hosts log in to.">${me.role === 'admin' && html`<button type="button" class="primary" onClick=${() => open((close) => html`<${NewTarget} targets=${targets} volumes=${volumes} onClose=${close} onDone=${found.reload} />`)}>New target</button>`}</${Head}>${dialog}
    <${Card}><${Table} label="Targets" rows=${targets} keyOf=${(row) => row.name} columns=${[
      ['Name', (row) => html`<a class="wrap" href=${`#/targets/${encodeURIComponent(row.name)}`}>${row.name}</a>${row.alias && html`<div class="note">${row.alias}</div>`}`], ['Shows', (row) => (row.library ? `tape library ${row.library}` : plural(Object.keys(row.luns).length, 'LUN')), { extra: true }],
      ['Sessions', (row) => row.sessions, { number: true }], ['Who may', (row) => (row.access.length ? html`<${Pill} mood="good">${plural(row.access.length, 'rule')}</${Pill}>` : html`<${Pill} mood="warn">everybody</${Pill}>`)]]}
      empty=${me.role === 'admin' ? html`No target yet. <a href="#/new">Make a disk for a host</a>` : 'No target yet.'} /></${Card}>`}</${Loaded}>`;
}

// ---- one of them

function Map({ where, target, volumes, onClose, onDone }) {
  const free = [...Array(256).keys()].find((lun) => !(lun in target.luns));
  const form = useForm({ lun: String(free), volume: volumes[0]?.name ?? '' }, async ({ lun, volume }) => { await edit('PUT', where, { volume }, `${where}/luns/${lun}`); toast('Hosts are told of the new LUN.'); onDone(); onClose(); });
  return html`<${FormDialog} title="Show a volume" form=${form} onClose=${onClose} action="Show it"><div class="inline"><${Input} label="LUN" type="number" min="0" max="16383" ...${form.bind('lun')} required /><${Select} label="Volume" options=${volumes.map((each) => [each.name, each.name])} ...${form.bind('volume')} /></div></${FormDialog}>`;
}

function Rule({ where, target, users, onClose, onDone, at }) {
  const old = at === undefined ? { right: 'full', initiators: [], addresses: [], users: [] } : target.access[at];
  const form = useForm({ right: old.right, initiators: old.initiators.join(' '), addresses: old.addresses.join(' '), users: old.users.join(' ') }, async (values) => {
    const words = (text) => text.split(/[\s,]+/).filter(Boolean);
    const rule = { ...(target.configuration.access?.[at] ?? {}), right: values.right, initiators: words(values.initiators), addresses: words(values.addresses), users: words(values.users) };
    const access = [...(target.configuration.access ?? [])];
    access.splice(at ?? access.length, at === undefined ? 0 : 1, rule);
    await edit('PATCH', where, { access });
    toast('The rule holds from now on.'); onDone(); onClose();
  });
  return html`<${FormDialog} title="Who may do what" form=${form} onClose=${onClose} action="Save">
    <${Select} label="Right" options=${[['full', 'Full: read and write'], ['read-only', 'Read only'], ['virtual-write', 'Virtual write: what is written is dropped at logout'], ['refuse', 'Refuse']]} ...${form.bind('right')} />
    <${Input} label="Hosts" help="iSCSI names of initiators, with * for any; empty: all." ...${form.bind('initiators')} spellcheck="false" />
    <${Input} label="Addresses" help="Like 192.0.2.7 or 192.0.2.0/24; empty: all." ...${form.bind('addresses')} />
    <${Input} label="CHAP users" help=${users.length ? `There are: ${users.map((each) => each.name).join(', ')}. Empty: nobody has to prove who he is.` : 'Empty: nobody has to prove who he is.'} ...${form.bind('users')} /></${FormDialog}>`;
}

export function TargetPage({ name, me }) {
  const where = path('targets', name);
  const found = useData(async () => { const [target, volumes, users] = await Promise.all([get(where), get('/volumes'), me.role === 'admin' ? get('/users') : []]); return { target, volumes, users }; }, [where], ['configuration', 'sessions']);
  const [dialog, open] = useDialog();
  return html`<${Loaded} of=${found}>${({ target, volumes, users }) => {
    const mine = me.role === 'admin' && target.configuration;
    const sources = Object.fromEntries(volumes.map((each) => [each.name, each]));
    return html`<${Head} title=${name} crumbs=${[['Targets', '#/targets']]} sub=${target.alias}>${mine && html`<button type="button" class="danger" onClick=${() => open((close) => html`<${DeleteDialog} what="target" name=${name} text="Hosts that are logged in lose it. Volumes are left as they are." onClose=${close}
        onDelete=${async () => { await edit('DELETE', where); toast('The target is gone.'); location.hash = '#/targets'; }} />`)}>Delete</button>`}</${Head}>${dialog}
      <div class="grid"><${Card} title="LUNs" span="span7" actions=${mine && !target.library && html`<button type="button" class="small" onClick=${() => open((close) => html`<${Map} where=${where} target=${target} volumes=${volumes} onClose=${close} onDone=${found.reload} />`)}>Show a volume</button>`}>
          <${Table} label="LUNs" rows=${Object.entries(target.luns)} keyOf=${([lun]) => lun} columns=${[['LUN', ([lun]) => lun, { number: true }], ['Volume', ([, volume]) => html`<a class="wrap" href=${sources[volume]?.pool && !sources[volume].snapshot ? `#/pools/${encodeURIComponent(sources[volume].pool)}/volumes/${encodeURIComponent(sources[volume].volume)}` : `#/volumes/${encodeURIComponent(volume)}`}>${volume}</a>`],
            ['', ([lun]) => mine && html`<${Button} kind="small danger" onClick=${async () => { await edit('DELETE', where, undefined, `${where}/luns/${lun}`); toast('It is no longer shown.'); found.reload(); }}>Take away</${Button}>`]]} empty=${target.library ? `It shows the tape library ${target.library}.` : 'It shows nothing yet.'} /></${Card}>
        <${Card} title="Reached by" span="span5"><${Facts} of=${target.portal_groups.map((each) => [`Portal group ${each.tag}`, each.portals.join(', ')])} /><p class="note">Now ${plural(target.sessions, 'session')}</p></${Card}>
        <${Card} title="Who may do what" note="the first rule that fits decides" actions=${mine && html`<button type="button" class="small" onClick=${() => open((close) => html`<${Rule} where=${where} target=${target} users=${users} onClose=${close} onDone=${found.reload} />`)}>Add a rule</button>`}>
          <${Table} label="Rules of access" rows=${target.access.map((rule, at) => ({ ...rule, at }))} keyOf=${(row) => row.at} columns=${[['Right', (row) => html`<${Pill} mood=${row.right === 'full' ? 'good' : row.right === 'refuse' ? 'bad' : 'warn'}>${row.right}</${Pill}>`], ['Hosts', (row) => html`<span class="wrap">${row.initiators.join(', ') || 'all'}</span>`],
            ['Addresses', (row) => row.addresses.join(', ') || 'all', { extra: true }], ['Users', (row) => row.users.join(', ') || 'anybody'],
            ['', (row) => mine && html`<span class="row"><button type="button" class="small" onClick=${() => open((close) => html`<${Rule} where=${where} target=${target} users=${users} at=${row.at} onClose=${close} onDone=${found.reload} />`)}>Change</button><${Button} kind="small danger" onClick=${async () => { await edit('PATCH', where, { access: (target.configuration.access ?? []).filter((_, at) => at !== row.at) }); found.reload(); }}>Remove</${Button}></span>`]]}
            empty="No rule: everybody who reaches a portal may read and write." /></${Card}>
        <${Card} title="Connect a host"><${Connect} target=${target} /></${Card}></div>`;
  }}</${Loaded}>`;
}

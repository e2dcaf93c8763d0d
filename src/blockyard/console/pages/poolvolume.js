// A volume of a pool: its snapshots, and the timeline on which one goes back to any protected moment.
import { html, useEffect, useState } from '../lib.js';
import { edit, get, path, post, put, remove } from '../api.js';
import { reachable } from '../connect.js';
import { Timeline } from '../timeline.js';
import { bytes, count, date, duration, latency, sizeOf, plural, when } from '../format.js';
import { History } from '../history.js';
import { useLive } from '../live.js';
import { Button, Card, DeleteDialog, Facts, FormDialog, Head, Input, Loaded, Paste, Pill, Select, Table, toast, useData, useDialog, useForm } from '../ui.js';
import { nameLike } from './targets.js';

// ---- dialogs

function Change({ where, volume, onClose, onDone }) {
  const form = useForm({ size: bytes(volume.size), quota: volume.quota ? bytes(volume.quota) : '', reservation: volume.reservation ? bytes(volume.reservation) : '' }, async (values) => {
    const change = {};
    if (values.size !== bytes(volume.size)) change.size = sizeOf(values.size);
    for (const key of ['quota', 'reservation']) {
      const now = volume[key] ? bytes(volume[key]) : '';
      if (values[key] !== now) change[key] = values[key] ? sizeOf(values[key]) : 0;
    }
    await edit('PATCH', where, change);
    toast('Changed.'); onDone(); onClose();
  });
  return html`<${FormDialog} title=${`Change ${volume.name}`} form=${form} onClose=${onClose} action="Change">
    <${Input} label="Size" help="Growing is safe at any time; hosts are told." ...${form.bind('size')} />
    <div class="inline"><${Input} label="Quota" help="What it may take of the pool at most; empty: no limit." ...${form.bind('quota')} />
    <${Input} label="Reservation" help="What is kept for it; empty: nothing." ...${form.bind('reservation')} /></div></${FormDialog}>`;
}

function Snap({ where, onClose, onDone }) {
  const form = useForm({ name: '' }, async ({ name }) => { await post(`${where}/snapshots`, name ? { name } : {}); toast('The snapshot is taken.'); onDone(); onClose(); });
  return html`<${FormDialog} title="Take a snapshot" form=${form} onClose=${onClose} action="Take it"><${Input} label="Name" help="Empty: one made of the time." ...${form.bind('name')} /></${FormDialog}>`;
}

function CloneOf({ of, send, onClose, onDone }) {
  const form = useForm({ name: '' }, async ({ name }) => { await send(name); toast(`The volume ${name} is there.`); onDone(); onClose(); });
  return html`<${FormDialog} title=${`New volume of ${of}`} form=${form} onClose=${onClose} action="Make it"><p class="note">It begins with what was there then, takes no space until it is written to, and can be used beside the original.</p>
    <${Input} label="Name" ...${form.bind('name')} required /></${FormDialog}>`;
}

function Bookmark({ where, moment, onClose, onDone }) {
  const form = useForm({ name: '' }, async ({ name }) => { await post(`${where}/cdp/bookmarks`, { name, moment, keep: true }); toast('The moment has a name, and is kept.'); onDone(); onClose(); });
  return html`<${FormDialog} title="Bookmark this moment" form=${form} onClose=${onClose} action="Bookmark"><p class="note">${when(moment)}</p><${Input} label="Name" ...${form.bind('name')} required /></${FormDialog}>`;
}

function RollBack({ what, name, send, onClose, onDone }) {
  const form = useForm({ typed: '' }, async () => { await send(); toast(`${name} is as it was.`); onDone(); onClose(); });
  return html`<${FormDialog} title="Roll back?" form=${form} onClose=${onClose} action="Roll back" danger ready=${form.values.typed === name}>
    <p>${name} becomes what it was at ${what}. Hosts have to be logged out.</p><${Input} label=${html`Type <code>${name}</code> to confirm`} ...${form.bind('typed')} autocomplete="off" /></${FormDialog}>`;
}

function Protect({ where, now, onClose, onDone }) {
  const form = useForm({ window: String(now?.on ? now.window : 86400), size: now?.size ? bytes(now.size) : '' }, async ({ window: seconds, size: text }) => {
    await put(`${where}/cdp`, { window: Number(seconds), ...(text ? { size: sizeOf(text) } : {}) });
    toast('Every write is kept from now on.'); onDone(); onClose();
  });
  return html`<${FormDialog} title="Continuous data protection" form=${form} onClose=${onClose} action="Protect">
    <p class="note">Every write is kept with its time, so that the volume can be opened as it was at any moment of the window.</p>
    <${Select} label="How far back" options=${[['3600', 'An hour'], ['21600', '6 hours'], ['86400', 'A day'], ['259200', '3 days'], ['604800', 'A week'], ['2592000', '30 days']]} ...${form.bind('window')} />
    <${Input} label="Space that it may take" help="Like 100G; empty: what the pool has." ...${form.bind('size')} /></${FormDialog}>`;
}

/** A moment is a name of the target with that time; a snapshot that is not among the protected moments gets a target of its own. */
function OpenMoment({ pool, name, snapshot, moment, targets, what, admin, onClose, onDone }) {
  const [made, set] = useState(moment && targets[0] ? { ...targets[0], name: `${targets[0].name}@${moment.toLowerCase()}` } : null);
  const form = useForm({}, async () => {
    if (made || !snapshot || !admin) { onClose(); return; }
    const volume = `${pool}/${name}@${snapshot.name}`;
    const all = await get('/targets');
    const target = nameLike(all, `${name}-${snapshot.name}`);
    await put(path('volumes', volume), { pool, volume: name, snapshot: snapshot.name, read_only: true });
    await put(path('targets', target), { luns: { 0: volume } });
    set({ name: target, portal: (await get(path('targets', target))).portal_groups[0].portals[0] });
    onDone();
  });
  return html`<${FormDialog} title="Open what was then" wide form=${form} onClose=${onClose} action=${made || !snapshot || !admin ? 'Done' : 'Make a target of it'}>
    ${made ? html`<p>Log in to this target and you see the volume as it was at ${what}. It can be read only: nothing happens to the volume itself.</p>
      <${Paste} label="Commands for Linux" text=${`iscsiadm -m node -T ${made.name} -p ${reachable(made.portal)} --op new\niscsiadm -m node -T ${made.name} -p ${reachable(made.portal)} --login`} />`
    : snapshot && admin ? html`<p>The snapshot becomes a disk of its own, which can be read only. Delete its target and its volume when you are done.</p>`
    : html`<p>No target shows this volume. Make a volume of this moment instead, or have an admin show it to a host.</p>`}</${FormDialog}>`;
}

// ---- the page

function targetsOf(targets, volumes, pool, name) {
  const names = volumes.filter((each) => each.pool === pool && each.volume === name && !each.snapshot).flatMap((each) => each.targets);
  return targets.filter((each) => names.includes(each.name)).map((each) => ({ name: each.name, portal: each.portal_groups[0]?.portals[0] ?? '' }));
}

function TimeTravel({ where, pool, name, protection, snapshots, targets, canChange, admin, onDone }) {
  const [at, setAt] = useState(null);
  const [dialog, open] = useDialog();
  const span = protection.spans.length ? protection.spans : [];
  const chosen = at ?? date(protection.now).getTime();
  const snapshot = snapshots.find((each) => Math.abs(date(each.time).getTime() - chosen) < 1);
  const covered = span.some(({ start, end }) => chosen >= date(start).getTime() && chosen <= date(end).getTime());
  const moment = new Date(chosen).toISOString();
  const what = snapshot ? `the snapshot ${snapshot.name}` : when(moment);
  const step = (seconds) => setAt(chosen + seconds * 1000);
  const usable = snapshot || covered;
  return html`<${Card} title="Timeline" note=${protection.on ? `every write of ${duration(protection.window)} is kept` : 'snapshots only'} actions=${canChange && html`<button type="button" class="small" onClick=${() => open((close) => html`<${Protect} where=${where} now=${protection} onClose=${close} onDone=${onDone} />`)}>${protection.on ? 'Change the window' : 'Protect every write'}</button>
      ${protection.on && html`<${Button} kind="small" onClick=${async () => { await remove(`${where}/cdp`); toast('Writes are no longer kept.'); onDone(); }}>Stop protecting</${Button}>`}`}>
    <${Timeline} protection=${protection} snapshots=${snapshots} at=${chosen} onChange=${setAt} />
    <div class="row between"><div class="row"><b>${what}</b> ${usable ? html`<${Pill} mood="good">can be opened</${Pill}>` : html`<${Pill} mood="warn">nothing is kept of this moment</${Pill}>`}</div>
      <div class="row" role="group" aria-label="Move the moment">${[[-60, '−1 min'], [-1, '−1 s'], [1, '+1 s'], [60, '+1 min']].map(([seconds, text]) => html`<button type="button" class="small" onClick=${() => step(seconds)}>${text}</button>`)}
        <button type="button" class="small" onClick=${() => setAt(null)}>Now</button></div></div>
    <div class="actions">
      <button type="button" class="primary" disabled=${!usable} onClick=${() => open((close) => html`<${OpenMoment} pool=${pool} name=${name} snapshot=${snapshot} moment=${covered ? moment : ''} targets=${targets} what=${what} admin=${admin} onClose=${close} onDone=${onDone} />`)}>Open it</button>
      ${canChange && html`<button type="button" disabled=${!usable} onClick=${() => open((close) => html`<${CloneOf} of=${what} onClose=${close} onDone=${onDone}
          send=${(made) => (snapshot ? post(`${where}${path('snapshots', snapshot.name, 'clone')}`, { name: made }) : post(`${where}/cdp/clone`, { moment, name: made }))} />`)}>Make a volume of it</button>
        ${!snapshot && html`<button type="button" disabled=${!covered} onClick=${() => open((close) => html`<${Bookmark} where=${where} moment=${moment} onClose=${close} onDone=${onDone} />`)}>Bookmark</button>`}
        <button type="button" class="danger" disabled=${!usable} onClick=${() => open((close) => html`<${RollBack} what=${what} name=${name} onClose=${close} onDone=${onDone}
          send=${() => (snapshot ? post(`${where}${path('snapshots', snapshot.name, 'rollback')}`) : post(`${where}/cdp/rollback`, { moment }))} />`)}>Roll back to it</button>`}
    </div>${dialog}</${Card}>`;
}

function Snapshots({ where, list, canChange, open, onDone }) {
  return html`<${Card} title="Snapshots" note=${plural(list.length, 'snapshot')} actions=${canChange && html`<button type="button" class="small primary" onClick=${() => open((close) => html`<${Snap} where=${where} onClose=${close} onDone=${onDone} />`)}>Take a snapshot</button>`}>
    <${Table} label="Snapshots" rows=${[...list].reverse()} keyOf=${(row) => row.name} columns=${[
      ['Name', (row) => html`<span class="wrap">${row.name}</span>`], ['Taken', (row) => when(row.time)], ['Size', (row) => bytes(row.size), { number: true, extra: true }],
      ['', (row) => canChange && html`<span class="row"><button type="button" class="small" onClick=${() => open((close) => html`<${CloneOf} of=${row.name} onClose=${close} onDone=${onDone} send=${(made) => post(`${where}${path('snapshots', row.name, 'clone')}`, { name: made })} />`)}>Clone</button>
        <button type="button" class="small danger" onClick=${() => open((close) => html`<${DeleteDialog} what="snapshot" name=${row.name} text="What only this snapshot has is gone then." onClose=${close}
          onDelete=${async () => { await remove(`${where}${path('snapshots', row.name)}`); toast('The snapshot is deleted.'); onDone(); }} />`)}>Delete</button></span>`],
    ]} empty="None yet. A snapshot takes a moment and no space until something changes." /></${Card}>`;
}

export function PoolVolumePage({ pool, name, me }) {
  const where = path('pools', pool, 'volumes', name);
  const found = useData(async () => {
    const [volume, snapshots, protection, targets, volumes] = await Promise.all([get(where), get(`${where}/snapshots`), get(`${where}/cdp`), get('/targets'), get('/volumes')]);
    return { volume, snapshots, protection, targets: targetsOf(targets, volumes, pool, name), served: volumes.find((each) => each.pool === pool && each.volume === name && !each.snapshot) };
  }, [where], ['configuration', 'jobs', 'event']);
  useEffect(() => { const timer = setInterval(found.reload, 5000); return () => clearInterval(timer); }, [found.reload]);
  const { statistics, activity } = useLive('statistics', 'activity');
  const [dialog, open] = useDialog();
  const canChange = me.role !== 'viewer';
  return html`<${Loaded} of=${found}>${({ volume, snapshots, protection, targets, served }) => {
    const rates = served && statistics?.volumes[served.name];
    const times = served && activity?.volumes[served.name];
    return html`<${Head} title=${name} crumbs=${me.role === 'owner' ? [['Volumes', '#/volumes']] : [['Pools', '#/pools'], [pool, `#/pools/${encodeURIComponent(pool)}`]]} sub=${`${bytes(volume.size)}, of which ${bytes(volume.used)} are taken`}>
        ${canChange && html`<button type="button" onClick=${() => open((close) => html`<${Change} where=${where} volume=${volume} onClose=${close} onDone=${found.reload} />`)}>Change</button>
          <button type="button" class="danger" onClick=${() => open((close) => html`<${DeleteDialog} what="volume" name=${name} text="The volume and all of its data are gone then, its snapshots too." onClose=${close}
            onDelete=${async () => { await edit('DELETE', where, undefined, `${where}?snapshots=true`); toast('The volume is deleted.'); location.hash = `#/pools/${encodeURIComponent(pool)}`; }} />`)}>Delete</button>`}</${Head}>${dialog}
      <div class="grid">
        <${TimeTravel} where=${where} pool=${pool} name=${name} protection=${protection} snapshots=${snapshots} targets=${targets} canChange=${canChange} admin=${me.role === 'admin'} onDone=${found.reload} />
        <${Card} title="About it" span="span6"><${Facts} of=${[['Size', bytes(volume.size)], ['Written', bytes(volume.mapped)], ['Takes of the pool', `${bytes(volume.used)}, with its snapshots`], ['Chunks', bytes(volume.chunk)], ['Checksums', volume.checksums ? 'on' : 'off'],
          ['Quota', volume.quota ? bytes(volume.quota) : 'none'], ['Reservation', volume.reservation ? bytes(volume.reservation) : 'none'], volume.origin && ['Clone of', volume.origin], ['Identity', html`<code>${volume.uuid}</code>`]]} /></${Card}>
        <${Card} title="In use" note="a second" span="span6"><${Facts} of=${[['Reads', rates ? `${count(rates.read_ops)} · ${bytes(rates.read_bytes)}` : '–'], ['Writes', rates ? `${count(rates.write_ops)} · ${bytes(rates.write_bytes)}` : '–'],
          ['Latency', times ? `reads ${latency(times.read_p50)}, 99 % in ${latency(times.read_p99)}; writes ${latency(times.write_p50)}, 99 % in ${latency(times.write_p99)}` : '–'],
          ['Hosts', volume.initiators.length ? volume.initiators.join(', ') : 'none'], ['Targets', targets.length ? targets.map((each) => html`<a class="wrap" href=${`#/targets/${encodeURIComponent(each.name)}`}>${each.name}</a> `) : html`none <a href="#/new">show it to a host</a>`]]} /></${Card}>
        ${served && html`<${History} series=${`volume:${served.name}`} />`}
        ${protection.bookmarks.length > 0 && html`<${Card} title="Bookmarks"><${Table} label="Bookmarks" rows=${protection.bookmarks} keyOf=${(row) => row.name} columns=${[['Name', (row) => row.name], ['Moment', (row) => when(row.time)],
          ['', (row) => canChange && html`<${Button} kind="small danger" onClick=${async () => { await remove(`${where}${path('cdp', 'bookmarks', row.name)}`); found.reload(); }}>Delete</${Button}>`]]} /></${Card}>`}
        <${Snapshots} where=${where} list=${snapshots} canChange=${canChange} open=${open} onDone=${found.reload} />
      </div>`;
  }}</${Loaded}>`;
}

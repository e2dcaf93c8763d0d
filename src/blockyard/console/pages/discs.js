// Optical drives: what is in them, the discs of their jukeboxes, and what can be done with these.
import { html, useState } from '../lib.js';
import { get, path, post, put } from '../api.js';
import { bytes, plural } from '../format.js';
import { useLive } from '../live.js';
import { PathField } from '../paths.js';
import { Button, Card, Check, DeleteDialog, Facts, FormDialog, Input, Loaded, Pill, Select, Table, toast, useData, useDialog, useForm } from '../ui.js';
import { Copies } from './copies.js';
import { NEW_TARGET, showDrive, takeOut } from './shown.js';

const BLANKS = ['cd-r', 'cd-rw', 'dvd-r', 'dvd-rw', 'dvd+r', 'dvd+rw', 'dvd-r-dl', 'dvd+r-dl', 'dvd+rw-dl', 'dvd-ram', 'bd-r', 'bd-re'];
const BLANKED = ['cd-rw', 'dvd-rw', 'dvd+rw', 'dvd+rw-dl', 'dvd-ram', 'bd-re'];
const MOODS = { loaded: 'good', unreadable: 'bad', damaged: 'bad', closed: 'good' };
const begun = () => toast('It has begun: its progress is shown below the discs.');

export function NewDrive({ targets, onClose, onDone }) {
  const form = useForm({ name: '', jukebox: '', target: NEW_TARGET }, async ({ name, jukebox, target }) => {
    await put(path('drives', name), jukebox ? { jukebox } : {});
    await showDrive(name, target);
    toast('The drive is there.'); onDone(); onClose();
  });
  return html`<${FormDialog} title="New optical drive" form=${form} onClose=${onClose} action="Make it"><${Input} label="Name" ...${form.bind('name')} required spellcheck="false" />
    <${PathField} label="Jukebox" help="A directory on the server, from / on, with the images that can be put in by name." kinds=${['directory']} ...${form.bind('jukebox')} />
    <${Select} label="Shown by" options=${[[NEW_TARGET, 'a new target'], ...targets.filter((each) => !each.library).map((each) => [each.name, each.name])]} ...${form.bind('target')} /></${FormDialog}>`;
}

function Insert({ drive, images, first, admin, onClose, onDone }) {
  const form = useForm({ image: first ?? images[0]?.name ?? '', force: false }, async ({ image, force }) => { await post(`${path('drives', drive.name)}/insert`, { image, force }); toast('It is in the drive.'); onDone(); onClose(); });
  return html`<${FormDialog} title=${`A disc for ${drive.name}`} form=${form} onClose=${onClose} action="Insert"><${PathField} label="Image" help=${images.length ? `A name in the jukebox${admin ? ', or a path on the server' : ''}.` : 'A path on the server.'} kinds=${['file']} reads browse=${admin} ...${form.bind('image')} required />
    ${drive.locked_by.length > 0 && html`<${Check} label="Even where a host keeps the disc in" help=${`${drive.locked_by.join(', ')} keeps it: it is asked to eject, and loses the disc with this.`} value=${form.values.force} onInput=${form.bind('force').onInput} />`}</${FormDialog}>`;
}

function Blank({ drive, onClose, onDone }) {
  const form = useForm({ image: '', kind: 'cd-r', size: '' }, async ({ image, kind, size }) => { await post(`${path('drives', drive.name)}/create-disc`, { image, kind, ...(size ? { size } : {}) }); toast('The disc is there.'); onDone(); onClose(); });
  return html`<${FormDialog} title="New blank disc" form=${form} onClose=${onClose} action="Make it"><${Input} label="Name" ...${form.bind('image')} required spellcheck="false" />
    <${Select} label="Kind" options=${BLANKS.map((each) => [each, each.toUpperCase()])} ...${form.bind('kind')} /><${Input} label="Size" help="Like 74min, 50G or 64M; empty: the usual one. It takes no space before it is written." ...${form.bind('size')} /></${FormDialog}>`;
}

function Import({ drive, onClose }) {
  const form = useForm({ file: '', image: '' }, async (values) => { await post(`${path('drives', drive.name)}/import-disc`, values); begun(); onClose(); });
  return html`<${FormDialog} title="Copy an image into the jukebox" form=${form} onClose=${onClose} action="Copy it"><${PathField} label="File" help="A path on the server, from / on: an image, or a cue sheet." kinds=${['file']} reads ...${form.bind('file')} required />
    <${Input} label="Name" help="In the jukebox; with .cue at its end for a CD with sound." ...${form.bind('image')} required spellcheck="false" /></${FormDialog}>`;
}

function Copy({ drive, image, admin, onClose }) {
  const form = useForm({ to: '' }, async ({ to }) => {
    const out = to.includes('/');
    await post(`${path('drives', drive.name)}/${out ? 'export' : 'convert'}-disc`, { image, [out ? 'file' : 'name']: to });
    begun(); onClose();
  });
  return html`<${FormDialog} title=${`Copy ${image}`} form=${form} onClose=${onClose} action="Copy it"><${PathField} label="To" help=${`A name in the jukebox${admin ? ', or a new file on the server, from / on' : ''}: .iso, or .cue for a CD with sound.`} kinds=${[]} create="file" browse=${admin} ...${form.bind('to')} required /></${FormDialog}>`;
}

function Rename({ drive, image, onClose, onDone }) {
  const form = useForm({ name: image }, async ({ name }) => { await post(`${path('drives', drive.name)}/rename-disc`, { image, name }); toast('It has another name.'); onDone(); onClose(); });
  return html`<${FormDialog} title=${`Label ${image}`} form=${form} onClose=${onClose} action="Rename it"><${Input} label="Name" ...${form.bind('name')} required spellcheck="false" /></${FormDialog}>`;
}

/** What can be done with a disc of the jukebox. One that is in this drive has to be taken out first. */
function Actions({ drive, image, images, me, open, onDone }) {
  const { name, kind, state } = image, admin = me.role === 'admin', inside = drive.image?.endsWith(`/${name}`);
  const act = (what, said) => async () => { await post(`${path('drives', drive.name)}/${what}-disc`, { image: name }); toast(said); onDone(); };
  const button = (text, make) => html`<button type="button" class="small" aria-label=${`${text} ${name}`} onClick=${() => open(make)}>${text}</button>`;
  return html`<span class="row">${!inside && button('Insert', (close) => html`<${Insert} drive=${drive} images=${images} first=${name} admin=${admin} onClose=${close} onDone=${onDone} />`)}
    ${!inside && state === 'appendable' && html`<${Button} kind="small" aria-label=${`Close ${name}`} onClick=${act('close', 'Nothing can be added to it now.')}>Close</${Button}>`}
    ${!inside && BLANKED.includes(kind) && state !== 'blank' && button('Blank', (close) => html`<${DeleteDialog} what="what is on" name=${name} text="The disc is blank after this." onDelete=${act('blank', 'It is blank.')} onClose=${close} />`)}
    ${state !== 'blank' && button('Copy', (close) => html`<${Copy} drive=${drive} image=${name} admin=${admin} onClose=${close} />`)}
    ${!inside && !name.endsWith('.cue') && button('Label', (close) => html`<${Rename} drive=${drive} image=${name} onClose=${close} onDone=${onDone} />`)}
    ${!inside && admin && button('Delete', (close) => html`<${DeleteDialog} what="disc" name=${name} text="Its files are thrown away, with all that is on them." onDelete=${act('remove', 'It is gone.')} onClose=${close} />`)}</span>`;
}

function Jukebox({ drive, images, me, open, onDone }) {
  return html`<${Table} label=${`Discs of ${drive.name}`} rows=${images} keyOf=${(row) => row.name} columns=${[
    ['Disc', (row) => html`<span class="wrap">${row.name}</span>`], ['Size', (row) => bytes(row.size), { number: true, extra: true }],
    ['Kind', (row) => (row.kind ? html`${row.kind.toUpperCase()} <${Pill} mood=${MOODS[row.state] ?? ''}>${row.state}</${Pill}>` : row.state || 'image'), { extra: true }],
    ['', (row) => me.role !== 'viewer' && html`<${Actions} drive=${drive} image=${row} images=${images} me=${me} open=${open} onDone=${onDone} />`]]} empty="No disc yet." />`;
}

function loaded({ disc, image, locked_by }) {
  return html`<${Facts} of=${[['In it', html`<span class="wrap">${image}</span>`], disc && ['Disc', `${disc.kind.toUpperCase()}, ${disc.state}`], disc && ['Can be read', bytes(disc.size)],
    disc?.state === 'appendable' && ['Room', bytes(disc.capacity)], disc && ['Layout', `${plural(disc.sessions.length, 'session')}, ${plural(disc.tracks.length, 'track')}`], locked_by.length > 0 && ['Kept in by', locked_by.join(', ')]]} />`;
}

export function Drive({ drive, me, onDone }) {
  const [dialog, open] = useDialog();
  const [where] = useState(path('drives', drive.name));
  const hidden = drive.state === 'hidden';
  const images = useData(async () => (hidden ? [] : get(`${where}/images`)), [where, hidden], ['jobs', 'event']);
  const { jobs } = useLive('jobs');
  const done = () => { images.reload(); onDone(); };
  const eject = async () => { await post(`${where}/eject`, {}); toast('It is out.'); done(); };
  const button = (text, make) => html`<button type="button" class="small" aria-label=${`${text}: ${drive.name}`} onClick=${() => open(make)}>${text}</button>`;
  const actions = me.role !== 'viewer' && html`${!hidden && button('Insert', (close) => html`<${Insert} drive=${drive} images=${images.data ?? []} admin=${me.role === 'admin'} onClose=${close} onDone=${done} />`)}
    ${(drive.image || drive.state === 'open') && html`<${Button} kind="small" aria-label=${`Eject: ${drive.name}`} onClick=${eject}>Eject</${Button}>`}
    ${!hidden && drive.jukebox && button('New blank disc', (close) => html`<${Blank} drive=${drive} onClose=${close} onDone=${done} />`)}
    ${me.role === 'admin' && !hidden && drive.jukebox && button('Import', (close) => html`<${Import} drive=${drive} onClose=${close} />`)}
    ${me.role === 'admin' && button('Remove', (close) => html`<${DeleteDialog} what="drive" name=${drive.name} text="Hosts lose it. Its discs stay where they are." onDelete=${async () => { await takeOut('drives', drive.name, drive.targets); onDone(); }} onClose=${close} />`)}`;
  return html`<${Card} title=${`Optical drive ${drive.name}`} note=${html`<${Pill} mood=${MOODS[drive.state] ?? ''}>${drive.state}</${Pill}>`} actions=${actions}>${dialog}<div class="stack">
    ${drive.image && loaded(drive)}${hidden ? html`<p class="note">No target shows it: make it the LUN of one.</p>` : drive.jukebox ? html`<${Loaded} of=${images}>${(list) => html`<${Jukebox} drive=${drive} images=${list} me=${me} open=${open} onDone=${done} />`}</${Loaded}>` : html`<p class="note">It has no jukebox.</p>`}
    <${Copies} jobs=${jobs.filter((job) => job.drive === drive.name)} of=${drive.name} canCancel=${me.role !== 'viewer'} /></div></${Card}>`;
}

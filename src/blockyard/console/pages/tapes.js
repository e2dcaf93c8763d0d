// Tape libraries: their drives, and the cartridges with what can be done with them.
import { html } from '../lib.js';
import { get, patch, path, post, put, remove } from '../api.js';
import { bytes, sizeOf } from '../format.js';
import { useLive } from '../live.js';
import { PathField } from '../paths.js';
import { Button, Card, DeleteDialog, FormDialog, Input, Loaded, Pill, Select, Table, toast, useData, useDialog, useForm } from '../ui.js';
import { Copies } from './copies.js';
import { showLibrary, takeOut } from './shown.js';

const begun = () => toast('It has begun: its progress is shown below the cartridges.');

export function NewLibrary({ onClose, onDone }) {
  const form = useForm({ name: '', directory: '', model: 'blockyard', drives: '1', slots: '10' }, async ({ name, directory, model, drives, slots }) => {
    await put(path('libraries', name), { directory, model, drives: Number(drives), slots: Number(slots) });
    await showLibrary(name);
    toast('The library is there.'); onDone(); onClose();
  });
  return html`<${FormDialog} title="New tape library" form=${form} onClose=${onClose} action="Make it"><${Input} label="Name" ...${form.bind('name')} required spellcheck="false" />
    <${PathField} label="Directory" help="On the server, from / on, for its cartridges; it is made when it is missing." kinds=${['directory']} create="directory" ...${form.bind('directory')} required />
    <${Input} label="Model" help="What it gives itself out for: blockyard, ibm-ts3500, ibm-ts3200, hpe-msl, stk-l700 or quantum-i500." ...${form.bind('model')} required spellcheck="false" />
    <div class="inline"><${Input} label="Drives" type="number" min="1" ...${form.bind('drives')} required /><${Input} label="Slots" type="number" min="1" ...${form.bind('slots')} required /></div></${FormDialog}>`;
}

function Move({ library, element, cartridge, onClose, onDone }) {
  const free = Object.entries(library.elements).filter(([, held]) => !held).map(([name]) => name);
  const drives = library.drives.filter((drive) => !drive.cartridge).map((drive) => drive.element);
  const slots = [...Array(library.slots).keys()].map((number) => `slot-${number + 1}`).filter((name) => !(name in library.elements));
  const places = [...new Set([...drives, ...free, ...slots.slice(0, 100)])];
  const form = useForm({ destination: places[0] ?? '' }, async ({ destination }) => { await post(`${path('libraries', library.name)}/move`, { source: element, destination }); toast('It is moved.'); onDone(); onClose(); });
  return html`<${FormDialog} title=${`Move ${cartridge}`} form=${form} onClose=${onClose} action="Move"><${Select} label="To" options=${places} ...${form.bind('destination')} /></${FormDialog}>`;
}

function NewCartridge({ library, onClose, onDone }) {
  const form = useForm({ barcode: '', count: '1', size: '' }, async ({ barcode, count, size }) => {
    const what = { barcode, ...(size ? { size: sizeOf(size) } : {}) }, where = path('libraries', library.name);
    if (Number(count) > 1) { await post(`${where}/create-cartridges`, { ...what, count: Number(count) }); begun(); } else { await post(`${where}/cartridges`, what); toast('The cartridge is there.'); }
    onDone(); onClose();
  });
  return html`<${FormDialog} title="New cartridge" form=${form} onClose=${onClose} action="Make it"><${Input} label="Barcode" help="Its label: like A00001L8, whose end says that it is of LTO-8." ...${form.bind('barcode')} required spellcheck="false" />
    <div class="inline"><${Input} label="How many" help="The others count up from it." type="number" min="1" max="10000" ...${form.bind('count')} required /><${Input} label="Size" help="Empty: that of its generation." ...${form.bind('size')} /></div></${FormDialog}>`;
}

function Import({ library, onClose }) {
  const form = useForm({ barcode: '', file: '' }, async (values) => { await post(`${path('libraries', library.name)}/import-image`, values); begun(); onClose(); });
  return html`<${FormDialog} title="Make a cartridge of a file" form=${form} onClose=${onClose} action="Copy it"><${PathField} label="File" help="A path on the server, from / on: a tape image (.tap)." kinds=${['file']} reads ...${form.bind('file')} required /><${Input} label="Barcode" ...${form.bind('barcode')} required spellcheck="false" /></${FormDialog}>`;
}

function Export({ where, barcode, onClose }) {
  const form = useForm({ file: '' }, async ({ file }) => { await post(`${where}/export-image`, { file }); begun(); onClose(); });
  return html`<${FormDialog} title=${`Copy ${barcode}`} form=${form} onClose=${onClose} action="Copy it"><${PathField} label="To" help="A new file on the server, from / on: a tape image (.tap) of what is on the first partition." kinds=${[]} create="file" ...${form.bind('file')} required /></${FormDialog}>`;
}

function Label({ where, barcode, onClose, onDone }) {
  const form = useForm({ barcode }, async (values) => { await post(`${where}/label`, values); toast('It has another barcode.'); onDone(); onClose(); });
  return html`<${FormDialog} title=${`Label ${barcode}`} form=${form} onClose=${onClose} action="Label it"><${Input} label="Barcode" help="Its end says what the cartridge is, as before. Hosts see the new one when they take stock again." ...${form.bind('barcode')} required spellcheck="false" /></${FormDialog}>`;
}

/** What can be done with a cartridge. One in a drive can only be moved. */
function Actions({ library, cartridge, me, open, onDone }) {
  const { barcode, element } = cartridge, where = path('libraries', library.name, 'cartridges', barcode), inDrive = element?.startsWith('drive-');
  const button = (text, make) => html`<button type="button" class="small" aria-label=${`${text} ${barcode}`} onClick=${() => open(make)}>${text}</button>`;
  const now = (text, said, act) => html`<${Button} kind="small" aria-label=${`${text} ${barcode}`} onClick=${async () => { await act(); toast(said); onDone(); }}>${text}</${Button}>`;
  return html`<span class="row">${element && button('Move', (close) => html`<${Move} library=${library} element=${element} cartridge=${barcode} onClose=${close} onDone=${onDone} />`)}
    ${element && !inDrive && now('Take out', 'It is outside.', () => post(`${where}/export`))}${!element && now('Put in', 'It is in.', () => post(`${where}/import`, {}))}
    ${!inDrive && !cartridge.error && now(cartridge.write_protected ? 'Allow writing' : 'Protect', cartridge.write_protected ? 'It can be written again.' : 'It cannot be written now.', () => patch(where, { write_protected: !cartridge.write_protected }))}
    ${!inDrive && !cartridge.error && button('Label', (close) => html`<${Label} where=${where} barcode=${barcode} onClose=${close} onDone=${onDone} />`)}
    ${!inDrive && me.role === 'admin' && button('Copy', (close) => html`<${Export} where=${where} barcode=${barcode} onClose=${close} />`)}
    ${!inDrive && me.role === 'admin' && button('Delete', (close) => html`<${DeleteDialog} what="cartridge" name=${barcode} text="Its files are thrown away, with all that is on it." onDelete=${async () => { await remove(where); toast('It is gone.'); onDone(); }} onClose=${close} />`)}</span>`;
}

function flags(row) {
  if (row.error) return html`<${Pill} mood="bad">${row.error}</${Pill}>`;
  return html`${row.generation ?? '–'} ${row.worm && html`<${Pill}>WORM</${Pill}>`} ${row.write_protected && html`<${Pill} mood="warn">protected</${Pill}>`}`;
}

export function Library({ library, me, onDone }) {
  const [dialog, open] = useDialog();
  const hidden = !library.targets.length;
  const cartridges = useData(async () => (hidden ? [] : get(`${path('libraries', library.name)}/cartridges`)), [library.name, hidden], ['event', 'jobs']);
  const { jobs } = useLive('jobs');
  const done = () => { cartridges.reload(); onDone(); };
  const button = (text, make) => html`<button type="button" class="small" aria-label=${`${text}: ${library.name}`} onClick=${() => open(make)}>${text}</button>`;
  const actions = me.role !== 'viewer' && html`${!hidden && button('New cartridge', (close) => html`<${NewCartridge} library=${library} onClose=${close} onDone=${done} />`)}
    ${me.role === 'admin' && !hidden && button('Import', (close) => html`<${Import} library=${library} onClose=${close} />`)}
    ${me.role === 'admin' && button('Remove', (close) => html`<${DeleteDialog} what="library" name=${library.name} text="Hosts lose it. Its cartridges stay in their directory." onDelete=${async () => { await takeOut('libraries', library.name, library.targets); onDone(); }} onClose=${close} />`)}`;
  return html`<${Card} title=${`Tape library ${library.name}`} note=${`${library.model}, ${library.slots} slots`} actions=${actions}>${dialog}<div class="stack">
    <div class="row">${library.drives.map((drive) => html`<${Pill} mood=${drive.cartridge ? 'good' : ''}>${drive.element}: ${drive.cartridge ?? 'empty'}</${Pill}>`)}</div>
    ${hidden ? html`<p class="note">No target shows it: make it the library of one.</p>` : html`<${Loaded} of=${cartridges}>${(list) => html`<${Table} label=${`Cartridges of ${library.name}`} rows=${list} keyOf=${(row) => row.barcode} columns=${[['Barcode', (row) => html`<code>${row.barcode}</code>`], ['Where', (row) => row.element ?? 'outside'], ['Kind', flags, { extra: true }],
      ['Used', (row) => (row.capacity ? `${bytes(row.used)} of ${bytes(row.capacity)}` : '–'), { number: true, extra: true }],
      ['', (row) => me.role !== 'viewer' && html`<${Actions} library=${library} cartridge=${row} me=${me} open=${open} onDone=${done} />`]]} empty="No cartridge yet." />`}</${Loaded}>`}
    <${Copies} jobs=${jobs.filter((job) => job.library === library.name)} of=${library.name} canCancel=${me.role !== 'viewer'} /></div></${Card}>`;
}

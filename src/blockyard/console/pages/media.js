// Tape libraries with their drives and cartridges, and optical drives with their discs.
import { html, useState } from '../lib.js';
import { get, path, post } from '../api.js';
import { bytes } from '../format.js';
import { Button, Card, FormDialog, Head, Input, Loaded, Pill, Select, Table, toast, useData, useDialog, useForm } from '../ui.js';

function Move({ library, element, cartridge, onClose, onDone }) {
  const free = Object.entries(library.elements).filter(([, held]) => !held).map(([name]) => name);
  const drives = library.drives.filter((drive) => !drive.cartridge).map((drive) => drive.element);
  const places = [...new Set([...drives, ...free])];
  const form = useForm({ destination: places[0] ?? '' }, async ({ destination }) => { await post(`${path('libraries', library.name)}/move`, { source: element, destination }); toast('It is moved.'); onDone(); onClose(); });
  return html`<${FormDialog} title=${`Move ${cartridge}`} form=${form} onClose=${onClose} action="Move"><${Select} label="To" options=${places} ...${form.bind('destination')} /></${FormDialog}>`;
}

function NewCartridge({ library, onClose, onDone }) {
  const form = useForm({ barcode: '' }, async ({ barcode }) => { await post(`${path('libraries', library.name)}/cartridges`, { barcode }); toast('The cartridge is there.'); onDone(); onClose(); });
  return html`<${FormDialog} title="New cartridge" form=${form} onClose=${onClose} action="Make it"><${Input} label="Barcode" help="Like A00001L8" ...${form.bind('barcode')} required /></${FormDialog}>`;
}

function Library({ library, canChange, onDone }) {
  const [dialog, open] = useDialog();
  const cartridges = useData(() => get(`${path('libraries', library.name)}/cartridges`), [library.name], ['event']);
  const done = () => { cartridges.reload(); onDone(); };
  return html`<${Card} title=${`Tape library ${library.name}`} note=${`${library.model}, ${library.slots} slots`} actions=${canChange && html`<button type="button" class="small" onClick=${() => open((close) => html`<${NewCartridge} library=${library} onClose=${close} onDone=${done} />`)}>New cartridge</button>`}>
    ${dialog}<div class="row">${library.drives.map((drive) => html`<${Pill} mood=${drive.cartridge ? 'good' : ''}>${drive.element}: ${drive.cartridge ?? 'empty'}</${Pill}>`)}</div>
    <${Loaded} of=${cartridges}>${(list) => html`<${Table} label=${`Cartridges of ${library.name}`} rows=${list} keyOf=${(row) => row.barcode} columns=${[['Barcode', (row) => html`<code>${row.barcode}</code>`], ['Where', (row) => row.element ?? 'outside'], ['Kind', (row) => row.generation ?? '–', { extra: true }],
      ['Used', (row) => (row.capacity ? `${bytes(row.used)} of ${bytes(row.capacity)}` : '–'), { number: true }],
      ['', (row) => canChange && html`<span class="row">${row.element && html`<button type="button" class="small" onClick=${() => open((close) => html`<${Move} library=${library} element=${row.element} cartridge=${row.barcode} onClose=${close} onDone=${done} />`)}>Move</button><${Button} kind="small" onClick=${async () => { await post(`${path('libraries', library.name, 'cartridges', row.barcode)}/export`); toast('It is outside.'); done(); }}>Take out</${Button}>`}
        ${!row.element && html`<${Button} kind="small" onClick=${async () => { await post(`${path('libraries', library.name, 'cartridges', row.barcode)}/import`, {}); toast('It is in.'); done(); }}>Put in</${Button}>`}</span>`]]} empty="No cartridge yet." />`}</${Loaded}></${Card}>`;
}

function Disc({ drive, onClose, onDone }) {
  const images = useData(() => get(`${path('drives', drive.name)}/images`), [drive.name]);
  const [first] = useState(drive.image ?? '');
  const form = useForm({ image: first }, async ({ image }) => { await post(`${path('drives', drive.name)}/insert`, { image }); toast('It is in the drive.'); onDone(); onClose(); });
  return html`<${FormDialog} title=${`A disc for ${drive.name}`} form=${form} onClose=${onClose} action="Insert"><${Input} label="Image" help=${images.data?.length ? `In the jukebox: ${images.data.map((each) => each.name).join(', ')}` : 'A path on the server.'} ...${form.bind('image')} required /></${FormDialog}>`;
}

export function Media({ me }) {
  const found = useData(async () => { const [libraries, drives] = await Promise.all([get('/libraries'), get('/drives')]); return { libraries, drives }; }, [], ['configuration', 'event']);
  const [dialog, open] = useDialog();
  const canChange = me.role !== 'viewer';
  return html`<${Head} title="Tapes and discs" sub="Virtual tape libraries and optical drives." />${dialog}<${Loaded} of=${found}>${({ libraries, drives }) => html`<div class="grid">
    ${libraries.map((each) => html`<${Library} key=${each.name} library=${each} canChange=${canChange} onDone=${found.reload} />`)}
    ${!libraries.length && html`<${Card} title="Tape libraries"><div class="empty">None is configured: see the documentation on tape libraries.</div></${Card}>`}
    <${Card} title="Optical drives"><${Table} label="Optical drives" rows=${drives} keyOf=${(row) => row.name} columns=${[['Drive', (row) => row.name], ['Disc', (row) => html`<span class="wrap">${row.image ?? 'none'}</span>`], ['Kind', (row) => row.disc?.kind ?? '–', { extra: true }], ['State', (row) => html`<${Pill}>${row.state}</${Pill}>`, { extra: true }],
      ['', (row) => canChange && html`<span class="row"><button type="button" class="small" onClick=${() => open((close) => html`<${Disc} drive=${row} onClose=${close} onDone=${found.reload} />`)}>Insert</button>${row.image && html`<${Button} kind="small" onClick=${async () => { await post(`${path('drives', row.name)}/eject`, {}); toast('It is out.'); found.reload(); }}>Eject</${Button}>`}</span>`]]} empty="None is configured." /></${Card}></div>`}</${Loaded}>`;
}

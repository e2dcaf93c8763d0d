// Tape libraries with their drives and cartridges, and optical drives with their discs.
import { html } from '../lib.js';
import { get } from '../api.js';
import { Card, Head, Loaded, useData, useDialog } from '../ui.js';
import { Drive, NewDrive } from './discs.js';
import { Library, NewLibrary } from './tapes.js';

export function Media({ me }) {
  const found = useData(async () => { const [libraries, drives, targets] = await Promise.all([get('/libraries'), get('/drives'), get('/targets')]); return { libraries, drives, targets }; }, [], ['configuration', 'event', 'jobs']);
  const [dialog, open] = useDialog();
  const admin = me.role === 'admin';
  return html`<${Head} title="Tapes and discs" sub="Virtual tape libraries and optical drives.">
    ${admin && html`<button type="button" onClick=${() => open((close) => html`<${NewLibrary} onClose=${close} onDone=${found.reload} />`)}>New tape library</button>
      <button type="button" onClick=${() => open((close) => html`<${NewDrive} targets=${found.data?.targets ?? []} onClose=${close} onDone=${found.reload} />`)}>New optical drive</button>`}</${Head}>
    ${dialog}<${Loaded} of=${found}>${({ libraries, drives }) => html`<div class="grid">
      ${libraries.map((each) => html`<${Library} key=${`library ${each.name}`} library=${each} me=${me} onDone=${found.reload} />`)}
      ${drives.map((each) => html`<${Drive} key=${`drive ${each.name}`} drive=${each} me=${me} onDone=${found.reload} />`)}
      ${!libraries.length && !drives.length && html`<${Card} title="Nothing yet"><div class="empty">No tape library and no optical drive yet.</div></${Card}>`}</div>`}</${Loaded}>`;
}

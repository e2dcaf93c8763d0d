// One volume that is not in a pool: a file, a device, a stack of layers.
import { html } from '../lib.js';
import { edit, get, isOperator, path, post } from '../api.js';
import { bytes, count, latency, plural } from '../format.js';
import { History } from '../history.js';
import { useLive } from '../live.js';
import { Card, DeleteDialog, Facts, FormDialog, Head, Input, Loaded, toast, useData, useDialog, useForm } from '../ui.js';
import { Stack, outline } from './stack.js';

function Resize({ volume, onClose, onDone }) {
  const form = useForm({ size: bytes(volume.size) }, async ({ size }) => {
    await post('/commands/volume%20resize', { volume: volume.name, size: size.replace(/\s*i?B?$/i, '').replace(/\s/g, '') });
    toast('It has its new size; hosts are told.');
    onDone(); onClose();
  });
  return html`<${FormDialog} title=${`Resize ${volume.name}`} form=${form} onClose=${onClose} action="Resize"><${Input} label="New size" help="Like 20G. Grow the file system on it afterwards." ...${form.bind('size')} /></${FormDialog}>`;
}

export function VolumePage({ name, me }) {
  const volume = useData(() => get(path('volumes', name)), [name]);
  const { statistics, activity } = useLive('statistics', 'activity');
  const [dialog, open] = useDialog();
  const rates = statistics?.volumes[name];
  const times = activity?.volumes[name];
  return html`<${Loaded} of=${volume}>${(found) => html`
    <${Head} title=${name} crumbs=${[['Volumes', '#/volumes']]} sub=${found.kind === 'stack' ? outline(found.source) : found.source}>
      ${isOperator(me) && found.kind === 'file' && html`<button type="button" onClick=${() => open((close) => html`<${Resize} volume=${found} onClose=${close} onDone=${volume.reload} />`)}>Resize</button>`}
      ${me.role === 'admin' && html`<button type="button" class="danger" onClick=${() => open((close) => html`<${DeleteDialog} what="volume" name=${name} onClose=${close}
        text="It is no longer served. The file, device or layers beneath are left as they are." onDelete=${async () => { await edit('DELETE', path('volumes', name)); location.hash = '#/volumes'; }} />`)}>Remove</button>`}
    </${Head}>${dialog}
    <div class="grid"><${Card} title="About it" span="span6"><${Facts} of=${[['Size', found.size ? bytes(found.size) : 'that of its layers'], found.kind === 'stack' && ['Stack', html`<code>${found.configuration?.stack ?? found.source}</code>`], ['Logical block', bytes(found.block_size)], ['Format', found.format], ['Access', found.read_only ? 'read only' : 'read and write'], ['Identity', html`<code>${found.uuid}</code>`],
        ['Targets', found.targets.length ? found.targets.map((each) => html`<a href=${`#/targets/${encodeURIComponent(each)}`}>${each}</a> `) : 'none: no host can see it']]} /></${Card}>
      <${Card} title="Now" note="a second" span="span6"><${Facts} of=${[['Reads', rates ? `${count(rates.read_ops)} · ${bytes(rates.read_bytes)}` : '–'], ['Writes', rates ? `${count(rates.write_ops)} · ${bytes(rates.write_bytes)}` : '–'],
        ['Latency', times ? `reads ${latency(times.read_p50)}, 99 % in ${latency(times.read_p99)}; writes ${latency(times.write_p50)}, 99 % in ${latency(times.write_p99)}` : '–'], ['In progress', times ? plural(times.depth, 'command') : '–'],
        ['Since it is served', found.counters ? `${count(found.counters.read_ops)} reads, ${count(found.counters.write_ops)} writes, ${found.counters.errors} errors` : '–']]} /></${Card}>
      <${History} series=${`volume:${name}`} />
      ${found.kind === 'stack' && html`<${Stack} name=${name} me=${me} />`}
    </div>`}</${Loaded}>`;
}

// Snapshots that are taken by themselves, and deleted when others have come.
import { html } from '../lib.js';
import { edit, get, path, post, put } from '../api.js';
import { ago, when } from '../format.js';
import { Button, Card, DeleteDialog, FormDialog, Head, Input, Loaded, Select, Table, toast, useData, useDialog, useForm } from '../ui.js';

function New({ onClose, onDone }) {
  const form = useForm({ name: '', every: 'hourly', volumes: '', hourly: '24', daily: '7', weekly: '4', monthly: '' }, async (values) => {
    const keep = {};
    for (const kind of ['hourly', 'daily', 'weekly', 'monthly']) if (values[kind]) keep[kind] = Number(values[kind]);
    await put(path('schedules', values.name), { at: values.every, volumes: values.volumes.split(/[\s,]+/).filter(Boolean), keep });
    toast('It is set.'); onDone(); onClose();
  });
  return html`<${FormDialog} title="New schedule" form=${form} onClose=${onClose} action="Make it"><${Input} label="Name" help="The names of its snapshots begin with it." ...${form.bind('name')} required />
    <${Select} label="When" options=${[['every 15 minutes', 'Every 15 minutes'], ['hourly', 'Every hour'], ['daily at 02:00', 'Every day at 2:00'], ['weekly on sunday at 02:00', 'Every Sunday at 2:00']]} ...${form.bind('every')} />
    <${Input} label="Volumes" help="POOL/VOLUME, with * for any: fast/vm-*" ...${form.bind('volumes')} required />
    <div class="inline"><${Input} label="Keep hourly ones" type="number" min="0" ...${form.bind('hourly')} /><${Input} label="Daily ones" type="number" min="0" ...${form.bind('daily')} /><${Input} label="Weekly ones" type="number" min="0" ...${form.bind('weekly')} /><${Input} label="Monthly ones" type="number" min="0" ...${form.bind('monthly')} /></div></${FormDialog}>`;
}

export function Schedules({ me }) {
  const found = useData(() => get('/schedules'));
  const [dialog, open] = useDialog();
  return html`<${Head} title="Schedules" sub="Snapshots that are taken by themselves.">${me.role === 'admin' && html`<button type="button" class="primary" onClick=${() => open((close) => html`<${New} onClose=${close} onDone=${found.reload} />`)}>New schedule</button>`}</${Head}>${dialog}
    <${Card}><${Loaded} of=${found}>${(list) => html`<${Table} label="Schedules" rows=${list} keyOf=${(row) => row.name} columns=${[['Name', (row) => row.name], ['When', (row) => row.at], ['Volumes', (row) => html`<span class="wrap">${row.volumes.join(', ')}</span> <span class="note">${row.matching.length} now</span>`, { extra: true }],
      ['Last', (row) => (row.last ? ago(row.last) : 'never'), { extra: true }], ['Next', (row) => (row.next ? when(row.next) : '–')],
      ['', (row) => me.role !== 'viewer' && html`<span class="row"><${Button} kind="small" onClick=${async () => { const ran = await post(`${path('schedules', row.name)}/run`); toast(`${ran.taken.length} snapshots taken.`); found.reload(); }}>Run now</${Button}>
        ${me.role === 'admin' && html`<button type="button" class="small danger" onClick=${() => open((close) => html`<${DeleteDialog} what="schedule" name=${row.name} text="Its snapshots stay." onClose=${close} onDelete=${async () => { await edit('DELETE', path('schedules', row.name)); found.reload(); }} />`)}>Delete</button>`}</span>`]]} empty="No schedule yet." />`}</${Loaded}></${Card}>`;
}

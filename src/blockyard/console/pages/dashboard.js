// How it goes: health, space, throughput, who is there, what has happened.
import { html } from '../lib.js';
import { get } from '../api.js';
import { Chart } from '../chart.js';
import { History } from '../history.js';
import { ago, bytes, count, latency, percent, plural } from '../format.js';
import { useLive } from '../live.js';
import { Card, Head, Loaded, Meter, Pill, Table, useData } from '../ui.js';
import { outline } from './stack.js';

function Throughput() {
  const { series } = useLive('statistics');
  const times = series.map((each) => each.time);
  const of = (key) => series.map((each) => each.total[key]);
  const { times: activities } = useLive('activity');
  const took = (key) => activities.map((each) => each[key]);
  return html`<${Card} title="Throughput" note="the last five minutes" span="span4">
      <${Chart} label="Throughput" times=${times} show=${(value) => `${bytes(value)}/s`} least=${1024} series=${[['Read', '--read', of('read_bytes')], ['Written', '--write', of('write_bytes')]]} /></${Card}>
    <${Card} title="Commands" note="a second" span="span4">
      <${Chart} label="Commands a second" times=${times} show=${(value) => count(value)} least=${10} series=${[['Reads', '--read', of('read_ops')], ['Writes', '--write', of('write_ops')]]} /></${Card}>
    <${Card} title="Latency" note="99th percentile" span="span4">
      <${Chart} label="Latency" times=${activities.map((each) => each.time)} show=${latency} least=${1e-4} series=${[['Reads', '--read', took('read_p99')], ['Writes', '--write', took('write_p99')]]} /></${Card}>`;
}

export function health(pools, volumes = []) {
  const broken = volumes.filter((volume) => volume.health === 'failed');
  if (broken.length) return ['bad', `${plural(broken.length, 'volume')} failed`];
  const bad = pools.filter((pool) => pool.health !== 'ok');
  if (bad.length) return ['bad', `${plural(bad.length, 'pool')} in trouble`];
  const degraded = volumes.filter((volume) => volume.health === 'degraded');
  if (degraded.length) return ['warn', `${plural(degraded.length, 'volume')} degraded`];
  const full = pools.filter((pool) => pool.level && pool.level !== 'good');
  if (full.length) return ['warn', `${plural(full.length, 'pool')} short of space`];
  return ['good', 'All is well'];
}

function Busiest() {
  const { statistics, activity } = useLive('statistics', 'activity');
  const slowest = ({ name }) => { const { read_p99: read, write_p99: write } = activity?.volumes[name] ?? {}; return latency(Math.max(read ?? 0, write ?? 0) || null); };
  const rows = Object.entries(statistics?.volumes ?? {}).map(([name, rates]) => ({ name, ...rates, all: rates.read_ops + rates.write_ops }))
    .sort((a, b) => b.all - a.all).slice(0, 6);
  return html`<${Card} title="Busiest volumes" span="span6"><${Table} label="Busiest volumes" rows=${rows} keyOf=${(row) => row.name} columns=${[
    ['Volume', (row) => html`<a class="wrap" href=${`#/volumes/${encodeURIComponent(row.name)}`}>${row.name}</a>`],
    ['Reads/s', (row) => count(row.read_ops), { number: true }], ['Writes/s', (row) => count(row.write_ops), { number: true }],
    ['Data/s', (row) => bytes(row.read_bytes + row.write_bytes), { number: true }], ['Latency', slowest, { number: true, extra: true }]]} empty="No volume is being served." /></${Card}>`;
}

function Who() {
  const { sessions } = useLive('sessions');
  return html`<${Card} title="Connected hosts" span="span6"><${Table} label="Connected hosts" rows=${(sessions ?? []).slice(0, 6)} keyOf=${(row) => `${row.target} ${row.tsih}`} columns=${[
    ['Initiator', (row) => html`<span class="wrap">${row.initiator}</span>`], ['Target', (row) => html`<a class="wrap" href=${`#/targets/${encodeURIComponent(row.target)}`}>${row.target.split(':').pop()}</a>`],
    ['From', (row) => row.connections[0]?.peer ?? '–', { extra: true }]]} empty=${html`No host is logged in. <a href="#/new">Connect one</a>`} /></${Card}>`;
}

/** Volumes that are stacks: how their arrays are, and what is being rebuilt. */
function Stacks({ volumes }) {
  const { jobs } = useLive('jobs');
  const stacks = volumes.filter((volume) => volume.kind === 'stack');
  if (!stacks.length) return null;
  const busy = (name) => jobs.filter((job) => job.volume === name && (job.state === 'running' || job.state === 'paused'));
  return html`<${Card} title="Arrays and other layers" span="span12"><${Table} label="Arrays and other layers" rows=${stacks} keyOf=${(row) => row.name} columns=${[
    ['Volume', (row) => html`<a class="wrap" href=${`#/volumes/${encodeURIComponent(row.name)}`}>${row.name}</a>`], ['Made of', (row) => html`<span class="wrap">${outline(row.source)}</span>`, { extra: true }],
    ['Health', (row) => (row.health ? html`<${Pill} state=${row.health} />` : html`<${Pill}>not open</${Pill}>`)],
    ['Under way', (row) => busy(row.name).map((job) => html`<div key=${job.id}><div class="row between"><span>${job.kind}${job.state === 'paused' && ' (paused)'}</span><span class="note">${percent(job.done, job.total).toFixed(0)} %</span></div><${Meter} mood="plain" label=${`Progress of ${job.kind} of ${row.name}`} value=${percent(job.done, job.total)} /></div>`)]]} /></${Card}>`;
}

export function Dashboard({ me }) {
  const status = useData(() => get('/status'), [], ['configuration', 'sessions']);
  const pools = useData(async () => (me.role === 'owner' ? [] : get('/pools')));
  const volumes = useData(() => get('/volumes'), [], ['configuration', 'jobs', 'event']);
  const events = useData(() => get('/events?last=6'), [], ['event']);
  return html`<${Head} title="Dashboard">${me.role === 'admin' && html`<a class="button primary" href="#/new">New disk for a host</a>`}</${Head}>
    <${Loaded} of=${status}>${(now) => html`<${Loaded} of=${pools}>${(all) => {
      const [mood, words] = health(all, volumes.data ?? []);
      return html`<div class="grid">
        <${Card} title="Health" span="span3"><${Pill} mood=${mood}>${words}</${Pill}><p class="note">Blockyard ${now.version}, up since ${ago(now.began)}</p></${Card}>
        <${Card} title="Volumes" span="span3"><p class="stat">${now.volumes}</p><p class="note">in ${plural(now.pools, 'pool')} and elsewhere</p></${Card}>
        <${Card} title="Targets" span="span3"><p class="stat">${now.targets}</p><p class="note">${plural(now.workers, 'worker')}</p></${Card}>
        <${Card} title="Sessions" span="span3"><p class="stat">${now.sessions}</p><p class="note"><a href="#/sessions">who is connected</a></p></${Card}>
        <${Throughput} />
        ${all.length > 0 && html`<${Card} title="Space" span="span12"><div class="stack">${all.map((pool) => html`<div class="stack" key=${pool.name}>
          <div class="row between"><a href=${`#/pools/${encodeURIComponent(pool.name)}`}>${pool.name}</a><span class="note">${pool.space ? `${bytes(pool.space.used)} of ${bytes(pool.space.size)} used, ${bytes(pool.space.provisioned)} promised` : pool.problem}</span></div>
          ${pool.space && html`<${Meter} label=${`Space used in ${pool.name}`} value=${percent(pool.space.used, pool.space.size)} />`}</div>`)}</div></${Card}>`}
        <${Stacks} volumes=${volumes.data ?? []} />
        ${me.role !== 'owner' && html`<${History} series="total" />`}
        <${Busiest} /><${Who} />
        <${Card} title="Latest events" actions=${html`<a href="#/events">All events</a>`}><${Loaded} of=${events}>${(list) => html`<${Table} label="Latest events" rows=${[...list].reverse()} keyOf=${(row) => row.id} columns=${[
          ['', (row) => html`<${Pill} state=${row.severity} />`], ['What', (row) => html`<span class="wrap">${row.text}</span>`], ['When', (row) => ago(row.time), { extra: true }]]} empty="Nothing has happened yet." />`}</${Loaded}></${Card}>
      </div>`;
    }}</${Loaded}>`}</${Loaded}>`;
}

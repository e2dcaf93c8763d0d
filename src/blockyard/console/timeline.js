// The timeline of a volume: what is kept of it as bars, snapshots and bookmarks as marks, and a handle that one drags, or moves
// with the arrow keys, to a moment. Beneath is a range input, so that keyboards and screen readers have what they know.
import { html } from './lib.js';
import { clock, date, when } from './format.js';

const FINEST = 1000; // milliseconds that an arrow key moves, at least

export function Timeline({ protection, snapshots, at, onChange }) {
  const now = date(protection.now).getTime();
  const marks = [...protection.spans.flatMap(({ start }) => [start]), ...snapshots.map((each) => each.time), ...protection.bookmarks.map((each) => each.time)];
  const first = Math.min(now - 60000, ...marks.map((each) => date(each).getTime()));
  const place = (time) => `${Math.min(100, Math.max(0, (100 * (date(time).getTime() - first)) / (now - first)))}%`;
  const moved = (event) => onChange(first + Number(event.currentTarget.value));
  const step = Math.max(FINEST, Math.round((now - first) / 2000));
  const long = now - first > 86400000;
  const tick = (each, kind) => html`<button type="button" key=${kind + each.name} class=${`tick ${kind}`} style=${{ left: place(each.time) }} title=${`${each.name}: ${when(each.time)}`}
    aria-label=${`${kind || 'snapshot'} ${each.name}, ${when(each.time)}`} onClick=${() => onChange(date(each.time).getTime())}></button>`;
  return html`<div class="timeline">
    <span class="end" style=${{ left: 0 }}>${long ? when(first / 1000) : clock(first / 1000)}</span><span class="end" style=${{ right: 0 }}>now</span>
    <div class="rail"></div>
    ${protection.spans.map(({ start, end }) => html`<div class="span" style=${{ left: place(start), right: `calc(100% - ${place(end)})` }}></div>`)}
    <input type="range" min="0" max=${Math.round(now - first)} step=${step} aria-label="Moment" aria-valuetext=${when(at / 1000)} value=${Math.round(at - first)} onInput=${moved} />
    <div class="handle" style=${{ left: place(at / 1000) }}></div>
    ${snapshots.map((each) => tick(each, ''))}${protection.bookmarks.map((each) => tick(each, 'bookmark'))}
  </div>`;
}

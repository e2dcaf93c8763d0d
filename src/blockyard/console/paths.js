// Paths on the server: a field that one can type in, and a button that opens the server's directories and disks.
import { html, useEffect, useId, useRef, useState } from './lib.js';
import { get } from './api.js';
import { bytes, parseSize, when } from './format.js';
import { Dialog, Field, Input, Pill } from './ui.js';

const SHOWN = 200;
const PAUSE = 120; // milliseconds that somebody has typed nothing in
const ICONS = { directory: 'M2 4h6l2 2h8v11H2z', file: 'M4 2h8l4 4v12H4z M12 2v4h4', device: 'M2 5h16v10H2z M5 12h5 M14.5 12v.1' };
const WHAT = { file: 'file', directory: 'directory', device: 'disk' };

/** "/srv/di" → ["/srv", "di"]: the directory, and what names in it begin with. */
function split(text) {
  const at = text.lastIndexOf('/');
  return [at > 0 ? text.slice(0, at) : text.slice(0, at + 1), text.slice(at + 1)];
}

/** Who types or pastes a whole path behind a directory begins anew. */
const anew = (text) => text.replace(/^.*\/\//, '/');

const inside = (directory) => (directory.endsWith('/') ? directory : `${directory}/`);

/**
 * What is in the directory that is being typed, or which disks there are: { found, error, directory, prefix }, the third and fourth
 * of which it was asked for: who types on is not told of another directory, nor that something is new which might be there.
 */
function useListing(text, disks, hidden) {
  const [state, set] = useState({ found: null, error: '' });
  const [directory, prefix] = disks ? ['', ''] : split(text);
  useEffect(() => {
    let wanted = true;
    const load = async () => {
      try {
        const found = disks ? await get('/devices') : await get(`/files?path=${encodeURIComponent(directory)}&prefix=${encodeURIComponent(prefix)}&limit=${SHOWN}&hidden=${hidden}`);
        if (wanted) set({ found: disks ? { entries: found.map(asEntry), places: state.found?.places ?? [] } : found, error: '', directory, prefix });
      } catch (error) {
        if (wanted) set((before) => ({ found: before.found && { ...before.found, entries: [], path: null }, error: error.message, directory, prefix }));
      }
    };
    const timer = setTimeout(load, state.found ? PAUSE : 0);
    return () => { wanted = false; clearTimeout(timer); };
  }, [directory, prefix, disks, hidden]);
  return state;
}

function asEntry(disk) { return { ...disk, kind: 'device', problem: disk.read_only ? 'it can only be read' : '', link: false, format: '', modified: null }; }

/** Why somebody may not choose it; '' where he may. */
function obstacle(entry, reads) { return entry.problem || (entry.used && !reads && entry.kind !== 'directory' ? `in use: ${entry.used}` : ''); }

function Row({ entry, id, active, reads, onChoose }) {
  const against = obstacle(entry, reads);
  const about = [entry.kind === 'device' && entry.path !== `/dev/${entry.name}` && entry.path.split('/').pop(), entry.model, entry.size !== null && entry.size !== undefined && bytes(entry.size), !['', 'raw'].includes(entry.format) && entry.format.toUpperCase(), entry.modified && when(entry.modified)];
  return html`<li id=${id} role="option" class=${active ? 'active' : ''} aria-selected=${active ? 'true' : 'false'} aria-disabled=${against ? 'true' : undefined} onClick=${() => onChoose(entry)}>
    <svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true"><path d=${ICONS[entry.kind]} /></svg>
    <span class="what"><b>${entry.name}${entry.kind === 'directory' ? '/' : ''}</b><span class="note">${about.filter(Boolean).join(' · ')}</span></span>
    ${against ? html`<${Pill} mood="bad">${against}</${Pill}>` : html`${entry.used && html`<${Pill}>in use: ${entry.used}</${Pill}>`}${entry.holds && html`<${Pill} mood="warn">has ${entry.holds} on it</${Pill}>`}`}</li>`;
}

/** What has been typed, if it can be used: { path, entry: what is there, isNew }. */
function typed(text, { found, directory, prefix: asked }, { kinds, create, reads }) {
  const [where, prefix] = split(text);
  if (!found?.path || where !== directory) return null;
  if (!prefix) return kinds.includes('directory') ? { path: found.path } : null;
  const entry = found.entries.find((each) => each.name === prefix);
  if (entry) return kinds.includes(entry.kind) && !obstacle(entry, reads) ? { path: entry.path, entry } : null;
  return create && prefix === asked ? { path: inside(found.path) + prefix, isNew: true } : null;
}

/** What there is to say below the list. */
function told(found, { disks, text, rows, create, size }) {
  const [, prefix] = split(text);
  const empty = disks ? 'No disk that may be used.' : prefix ? `Nothing here begins with “${prefix}”.` : 'Nothing here to choose.';
  const taken = create && found.entries.some((each) => each.name === prefix && each.kind !== 'directory' && !rows.includes(each)) && `There is “${prefix}” already.`;
  return [taken || (!rows.length && empty), found.more && `The first ${SHOWN}: type on for others.`, !disks && room(found, create, size)].filter(Boolean).join(' ');
}

/** How much fits: files are sparse, so that what is too large is made, and runs out of space one day. */
function room(found, create, size) {
  if (!found?.path) return '';
  const free = `${bytes(found.free)} free here`;
  if (create && !found.writable) return `${free}; the server may not write here`;
  return create === 'file' && size && parseSize(size.value) > found.free ? `Only ${free}` : free;
}

function Chooser({ label, value, options, onChoose, onClose }) {
  const { kinds, create, size, reads } = options;
  const [text, setText] = useState(value.startsWith('/') ? value : '');
  const [disks, setDisks] = useState(false);
  const [hidden, setHidden] = useState(false);
  const [active, setActive] = useState(-1);
  const listing = useListing(text, disks, hidden);
  const { found, error } = listing;
  const id = useId();
  const input = useRef(null);
  const began = useRef(false);
  useEffect(() => { if (!began.current && found) { began.current = true; if (found.path) setText((now) => now || inside(found.path)); } }, [found]);
  const [directory, prefix] = disks ? ['', ''] : split(text);
  const begins = (name) => name.toLowerCase().startsWith(prefix.toLowerCase());
  const rows = (directory === listing.directory ? found.entries : []).filter((entry) => (entry.kind === 'directory' || kinds.includes(entry.kind)) && begins(entry.name));
  const at = active < 0 && prefix && rows.length ? 0 : Math.min(active, rows.length - 1);
  const target = disks ? null : typed(text, listing, options);
  const use = () => onChoose(target.path, target.entry);
  useEffect(() => { document.getElementById(`${id}-${at}`)?.scrollIntoView({ block: 'nearest' }); }, [at]);
  const go = (where) => { setDisks(false); setText(where); setActive(-1); input.current.focus(); };
  const choose = (entry) => {
    if (entry.kind === 'directory' && entry.path && !entry.problem) go(inside(entry.path));
    else if (!obstacle(entry, reads)) onChoose(entry.path, entry);
  };
  const press = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key];
    if (event.altKey && event.key === 'ArrowUp') { if (found?.parent) go(inside(found.parent)); } else if (step) setActive(Math.max(0, Math.min(rows.length - 1, at + step)));
    else if (event.key === 'Enter') { if (rows[at]) choose(rows[at]); else if (target) use(); } else return;
    event.preventDefault();
  };
  const still = (event) => { if (event.key === 'Enter' && event.target.tagName === 'INPUT') event.preventDefault(); }; // it would send the form around it
  return html`<${Dialog} title=${`${label}: choose`} wide onClose=${onClose}><div class="body chooser" onKeyDown=${still}>
    <${Field} label="Path on the server" help=${`Type to narrow it down; arrows and Enter open directories${found?.parent ? ', Alt with ↑ goes up' : ''}.`}>${(attributes) => html`<input ...${attributes} ref=${input} autofocus role="combobox" aria-expanded=${rows.length ? 'true' : 'false'} aria-controls=${rows.length ? id : undefined} aria-autocomplete="list"
      aria-activedescendant=${at >= 0 ? `${id}-${at}` : undefined} value=${text} onInput=${(event) => { setDisks(false); setText(anew(event.currentTarget.value)); setActive(-1); }} onKeyDown=${press} autocomplete="off" spellcheck="false" maxlength="4096" />`}</${Field}>
    <div class="row" role="group" aria-label="Where to look">${found?.parent && !disks && html`<button type="button" class="small" onClick=${() => go(inside(found.parent))}>Up</button>`}
      ${kinds.includes('device') && html`<button type="button" class="small" aria-pressed=${disks ? 'true' : 'false'} onClick=${() => { setDisks(true); setActive(-1); input.current.focus(); }}>Disks of the server</button>`}
      ${(found?.places ?? []).map((place) => html`<button type="button" key=${place} class="small wrap" aria-pressed=${!disks && found.path === place ? 'true' : 'false'} onClick=${() => go(inside(place))}>${place}</button>`)}
      <label class="row"><input type="checkbox" checked=${hidden} onInput=${(event) => setHidden(event.currentTarget.checked)} />Show hidden</label></div>
    ${rows.length > 0 && html`<ul class="choosing" id=${id} role="listbox" tabindex="0" aria-label=${disks ? 'Disks of the server' : `In ${found.path}`} aria-activedescendant=${at >= 0 ? `${id}-${at}` : undefined} onKeyDown=${press}>
      ${rows.map((entry, number) => html`<${Row} key=${number} entry=${entry} id=${`${id}-${number}`} active=${number === at} reads=${reads} onChoose=${choose} />`)}</ul>`}
    <p class="note" role="status">${error || (found ? told(found, { disks, text, rows, create, size }) : 'Loading …')}</p>
    ${target?.isNew && html`<div class="inline"><p>A new ${create}: it is made when the form is sent.</p>${create === 'file' && size && html`<${Input} label="Size of the new file" ...${size} help="It takes space as it is written to." />`}</div>`}
    <div class="foot"><button type="button" onClick=${onClose}>Cancel</button><button type="button" class="primary wrap" disabled=${!target} onClick=${use}>${target ? `Use ${target.path}` : kinds.length ? `Choose a ${kinds.map((kind) => WHAT[kind]).join(' or a ')}` : `Name a new ${create}`}</button></div></div></${Dialog}>`;
}

/**
 * A path to be typed or chosen. `kinds`: file, device, directory; `create`: what is made when it is missing (file, directory), with
 * `size` (value and onInput) of such a file; `reads`: what is in use may be chosen; `many`: with commas between them. `onPick` is
 * told of what was chosen, as GET /files has it. Without `browse` it is a field like others: for whoever may not look.
 */
export function PathField({ label, help, fault, value, onInput, kinds = ['file', 'device'], create = '', size, reads = false, many = false, browse = true, onPick, ...more }) {
  const [open, setOpen] = useState(false);
  const [picked, setPicked] = useState(null);
  const input = useRef(null);
  const was = useRef(false);
  const id = useId();
  useEffect(() => { if (was.current && !open) input.current.focus(); was.current = open; }, [open]);
  const choose = (path, entry) => {
    onInput(many && value.trim() ? `${value.replace(/[\s,]+$/, '')}, ${path}` : path);
    setPicked(entry && { ...entry, path });
    onPick?.(entry);
    setOpen(false);
  };
  const warning = picked?.holds && value.includes(picked.path) ? `There is something on it (${picked.holds}): make sure that nobody needs it.` : '';
  return html`<${Field} label=${html`<span id=${id}>${label}</span>`} help=${help} fault=${fault || warning}>${(attributes) => html`<div class="choose">
      <input ...${attributes} ...${more} ref=${input} aria-invalid=${fault ? 'true' : undefined} value=${value} onInput=${(event) => onInput(event.currentTarget.value)} spellcheck="false" autocomplete="off" />
      ${browse && html`<button type="button" aria-describedby=${id} onClick=${() => setOpen(true)}>Browse</button>`}</div>
    ${open && html`<${Chooser} label=${label} value=${many ? '' : value} options=${{ kinds, create, size, reads }} onChoose=${choose} onClose=${() => setOpen(false)} />`}`}</${Field}>`;
}

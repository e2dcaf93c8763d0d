// The pieces that pages are made of: buttons, fields, dialogs, tables, notices.
import { html, useCallback, useEffect, useId, useRef, useState } from './lib.js';
import { useOn } from './live.js';

// ---- notices

let addToast = () => {};

/** Tell somebody what has happened, for some seconds. */
export function toast(text, bad = false) { addToast({ text, bad, id: Math.random() }); }

export function Toasts() {
  const [shown, show] = useState([]);
  useEffect(() => {
    addToast = (each) => {
      show((before) => [...before, each]);
      setTimeout(() => show((before) => before.filter((other) => other.id !== each.id)), each.bad ? 9000 : 4500);
    };
  }, []);
  return html`<div class="toasts" role="status" aria-live="polite">
    ${shown.map((each) => html`<div key=${each.id} class=${each.bad ? 'toast bad' : 'toast'}>${each.text}</div>`)}
  </div>`;
}

// ---- data

/** Something of the API, fetched now and again when a message of the stream says that it may have changed. */
export function useData(fetcher, deps = [], again = ['configuration', 'jobs']) {
  const [state, set] = useState({ data: null, error: null, loading: true });
  const current = useRef(0);
  const load = useCallback(async () => {
    const number = ++current.current;
    try {
      const data = await fetcher();
      if (number === current.current) set({ data, error: null, loading: false });
    } catch (error) {
      if (number === current.current) set((before) => ({ data: before.data, error, loading: false }));
    }
  }, deps);
  useEffect(() => { load(); return () => { current.current += 1; }; }, [load]);
  useOn(again, load);
  return { ...state, reload: load };
}

/** What is shown while something comes, or when it does not. */
export function Loaded({ of, children }) {
  if (of.error && !of.data) return html`<div class="alert" role="alert">${of.error.message}</div>`;
  if (!of.data) return html`<p class="note" role="status">Loading …</p>`;
  return children(of.data);
}

// ---- small ones

export function Button({ kind = '', onClick, children, ...more }) {
  const [busy, set] = useState(false);
  const click = async () => {
    set(true);
    try { await onClick(); } catch (error) { toast(error.message, true); } finally { set(false); }
  };
  return html`<button type="button" class=${kind} disabled=${busy} onClick=${click} ...${more}>${children}</button>`;
}

const MOODS = { ok: 'good', running: 'good', done: 'good', info: '', failed: 'bad', error: 'bad', unreachable: 'bad', degraded: 'warn', rebuilding: 'warn', warning: 'warn', cancelled: 'warn', paused: 'warn', soft: 'warn', hard: 'bad' };

export function Pill({ state, mood, children }) {
  return html`<span class=${`pill ${mood ?? MOODS[state] ?? ''}`}>${children ?? state}</span>`;
}

export function Meter({ value, second = 0, label, mood }) {
  const kind = mood ?? (value > 95 ? 'bad' : value > 80 ? 'warn' : '');
  return html`<div class=${`meter ${kind}`} role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.round(value)}>
    <i style=${{ width: `${value}%` }}></i>${second > 0 && html`<i class="second" style=${{ width: `${Math.min(second, 100 - value)}%` }}></i>`}
  </div>`;
}

export function Head({ title, sub, crumbs, children }) {
  useEffect(() => { document.title = `${title} – Blockyard`; }, [title]);
  return html`<div class="head"><div>
    ${crumbs && html`<nav class="crumbs" aria-label="Where this is">${crumbs.map(([text, to]) => html`<a href=${to}>${text}</a> / `)}</nav>`}
    <h1>${title}</h1>${sub && html`<p class="sub">${sub}</p>`}</div>
    <div class="actions">${children}</div></div>`;
}

export function Card({ title, note, span = '', actions, children }) {
  const id = useId();
  return html`<section class=${`card ${span}`} aria-labelledby=${title ? id : undefined}>
    ${title && html`<div class="title"><h2 id=${id}>${title}</h2>${note && html`<span class="note">${note}</span>`}${actions && html`<div class="actions">${actions}</div>`}</div>`}
    ${children}</section>`;
}

/** `columns`: [heading, function of a row, options?]; options: number, extra (left out on phones). */
export function Table({ label, columns, rows, keyOf, empty }) {
  if (!rows.length) return html`<div class="empty">${empty ?? 'There is nothing here yet.'}</div>`;
  const kind = (options = {}) => `${options.number ? 'number' : ''} ${options.extra ? 'extra' : ''}`;
  return html`<div class="table" tabindex="0" role="region" aria-label=${label}><table>
    <thead><tr>${columns.map(([heading, , options]) => html`<th scope="col" class=${kind(options)}>${heading || html`<span class="visually-hidden">Actions</span>`}</th>`)}</tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${keyOf(row)}>${columns.map(([, cell, options]) => html`<td class=${kind(options)}>${cell(row)}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}

export function Facts({ of }) {
  return html`<dl class="facts">${of.filter((each) => each && each[1] !== undefined && each[1] !== null).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;
}

export function Paste({ text, label }) {
  const copy = async () => { await navigator.clipboard.writeText(text); toast('Copied.'); };
  return html`<div class="stack"><pre class="paste" tabindex="0" aria-label=${label}>${text}</pre>
    ${navigator.clipboard && html`<div><${Button} kind="small" onClick=${copy}>Copy</${Button}></div>`}</div>`;
}

export function Tabs({ names, current, onChange }) {
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = names[(names.indexOf(current) + step + names.length) % names.length];
    onChange(next);
    event.currentTarget.querySelector(`[data-tab="${next}"]`).focus();
  };
  return html`<div class="tabs" role="tablist" onKeyDown=${move}>${names.map((name) => html`<button type="button" role="tab" data-tab=${name}
    aria-selected=${name === current ? 'true' : 'false'} tabindex=${name === current ? 0 : -1} onClick=${() => onChange(name)}>${name}</button>`)}</div>`;
}

// ---- forms and dialogs

export function Field({ label, help, fault, children }) {
  const id = useId();
  return html`<div class="field"><label for=${id}>${label}</label>${children({ id, 'aria-describedby': `${id}-help`, 'aria-invalid': fault ? 'true' : undefined })}
    <span id=${`${id}-help`} class=${fault ? 'fault' : 'help'}>${fault || help || ''}</span></div>`;
}

export function Input({ label, help, fault, value, onInput, ...more }) {
  return html`<${Field} label=${label} help=${help} fault=${fault}>${(attributes) => html`<input ...${attributes} ...${more} value=${value} onInput=${(event) => onInput(event.currentTarget.value)} />`}</${Field}>`;
}

export function Select({ label, help, fault, value, options, onInput }) {
  return html`<${Field} label=${label} help=${help} fault=${fault}>${(attributes) => html`<select ...${attributes} value=${value} onInput=${(event) => onInput(event.currentTarget.value)}>
    ${options.map((option) => { const [key, text] = Array.isArray(option) ? option : [option, option]; return html`<option value=${key} selected=${key === value}>${text}</option>`; })}</select>`}</${Field}>`;
}

export function Check({ label, help, value, onInput }) {
  const id = useId();
  return html`<div class="check"><input id=${id} type="checkbox" checked=${value} onInput=${(event) => onInput(event.currentTarget.checked)} />
    <div class="field"><label for=${id}>${label}</label>${help && html`<span class="help">${help}</span>`}</div></div>`;
}

/** A form's values, what is wrong with them, and sending them. `send` may throw a Problem, whose faults are shown at the fields. */
export function useForm(initial, send) {
  const [values, set] = useState(initial);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const bind = (name) => ({ value: values[name], fault: problem?.faults?.[name], onInput: (value) => set((before) => ({ ...before, [name]: value })) });
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try { await send(values); } catch (error) { setProblem(error); } finally { setBusy(false); }
  };
  return { values, set, bind, submit, busy, problem };
}

export function Dialog({ title, wide, onClose, children }) {
  const ref = useRef(null);
  const id = useId();
  useEffect(() => { ref.current.showModal(); }, []);
  return html`<dialog ref=${ref} class=${wide ? 'wide' : ''} aria-labelledby=${id} onClose=${onClose} onCancel=${onClose}>
    <div class="body"><h2 id=${id}>${title}</h2></div>${children}</dialog>`;
}

export function FormDialog({ title, form, onClose, action, danger, wide, ready = true, children }) {
  return html`<${Dialog} title=${title} onClose=${onClose} wide=${wide}><form onSubmit=${form.submit}>
    ${children}
    ${form.problem && html`<div class="alert" role="alert">${form.problem.message}</div>`}
    <div class="foot"><button type="button" onClick=${onClose}>Cancel</button>
      <button type="submit" class=${danger ? 'primary danger' : 'primary'} disabled=${form.busy || !ready}>${form.busy ? 'One moment …' : action}</button></div>
  </form></${Dialog}>`;
}

/** What destroys is asked for by its name. */
export function DeleteDialog({ what, name, text, onDelete, onClose }) {
  const form = useForm({ typed: '' }, async () => { await onDelete(); onClose(); });
  return html`<${FormDialog} title=${`Delete ${what} ${name}?`} form=${form} onClose=${onClose} action=${`Delete ${what}`} danger ready=${form.values.typed === name}>
    <p>${text}</p><${Input} label=${html`Type <code>${name}</code> to confirm`} ...${form.bind('typed')} autocomplete="off" spellcheck="false" /></${FormDialog}>`;
}

/** Opens and closes dialogs: [what is open, function to open one]. */
export function useDialog() {
  const [open, set] = useState(null);
  const close = () => set(null);
  return [open && open(close), (make) => set(() => make)];
}


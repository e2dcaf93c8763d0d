// The API as the console calls it: JSON, the CSRF token of the login with every change, ETags, problems as exceptions.
const BASE = '/api/v1';
let csrf = '';
let lost = () => {};

/** What the server says is wrong (RFC 9457). `faults` tells by field. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `the server answered ${status}`);
    this.status = status;
    this.faults = Object.fromEntries((body.errors || []).map((each) => [String(each.at ?? each.field ?? each.loc ?? '').split('.').pop(), each.problem ?? each.detail ?? each.msg ?? '']));
    this.body = body;
  }
}

export function authenticated(me) { csrf = (me && me.csrf) || ''; }

/** `handler` is called when the session has ended. */
export function onLost(handler) { lost = handler; }

/** Whether somebody may do what happens every day, to all that there is: an owner may only at their targets. */
export function isOperator(me) { return me.role === 'operator' || me.role === 'admin'; }

/** A path of the API from parts, each encoded; volumes' names may have slashes in them. */
export function path(...parts) { return parts.map((part) => '/' + encodeURIComponent(part)).join(''); }

async function call(method, where, body, etag) {
  const headers = { accept: 'application/json' };
  if (body !== undefined) headers['content-type'] = 'application/json';
  if (method !== 'GET' && csrf) headers['x-csrf-token'] = csrf;
  if (etag) headers['if-match'] = etag;
  let response;
  try {
    response = await fetch(BASE + where, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), credentials: 'same-origin' });
  } catch {
    throw new Problem(0, { detail: 'the server cannot be reached: it may be restarting' });
  }
  const text = await response.text();
  let found = null;
  try { found = text ? JSON.parse(text) : null; } catch { found = { detail: text.slice(0, 300) }; }
  if (!response.ok) {
    if (response.status === 401 && !['/login', '/me', '/setup'].includes(where)) lost();
    throw new Problem(response.status, found || {});
  }
  return { data: found, etag: response.headers.get('etag') };
}

export const etagOf = async (where) => (await call('GET', where)).etag;
export const get = async (where) => (await call('GET', where)).data;
export const post = async (where, body) => (await call('POST', where, body ?? {})).data;
export const put = async (where, body, etag) => (await call('PUT', where, body, etag)).data;
export const patch = async (where, body, etag) => (await call('PATCH', where, body, etag)).data;
export const remove = async (where, etag) => (await call('DELETE', where, undefined, etag)).data;

/** Change an object as it is now: its ETag is fetched first. `at` is what is changed, where that is a part of it. */
export async function edit(method, where, body, at = where) {
  const { etag } = await call('GET', where);
  return (await call(method, at, body, etag)).data;
}

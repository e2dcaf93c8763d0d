// What changes by itself: one stream of server-sent events for the whole console, and who looks at it.
import { useEffect, useState } from './lib.js';

const KEPT = 300; // seconds of throughput and latency
const listeners = new Set();

export const live = { connected: false, statistics: null, series: [], activity: null, times: [], sessions: null, jobs: [], events: [], configuration: 0 };
let source = null;

function tell(what) { for (const listener of listeners) listener(what); }

function take(name, apply) {
  source.addEventListener(name, (message) => { apply(JSON.parse(message.data)); tell(name); });
}

export function connect() {
  if (source) return;
  source = new EventSource('/api/v1/stream');
  source.onopen = () => { live.connected = true; tell('connection'); };
  source.onerror = () => {
    live.connected = false;
    tell('connection');
    if (source && source.readyState === EventSource.CLOSED) { const again = source; setTimeout(() => { if (source === again) { source = null; connect(); } }, 3000); }
  };
  take('statistics', (found) => { live.statistics = found; live.series = [...live.series, found].slice(-KEPT); });
  take('activity', (found) => { live.activity = found; live.times = [...live.times, { time: found.time, ...found.total }].slice(-KEPT); });
  take('sessions', (found) => { live.sessions = found; });
  take('jobs', (found) => { live.jobs = found; });
  take('event', (found) => { live.events = [found, ...live.events].slice(0, 200); });
  take('configuration', () => { live.configuration += 1; });
}

export function disconnect() {
  if (source) source.close();
  source = null;
  live.connected = false;
}

/** Draw again when one of these has come: a component that calls this shows `live` as it is. */
export function useLive(...names) {
  const [, draw] = useState(0);
  useEffect(() => {
    const listener = (what) => { if (names.includes(what)) draw((n) => n + 1); };
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, [names.join()]);
  return live;
}

/** Call `then` when one of these has come. */
export function useOn(names, then) {
  useEffect(() => {
    const listener = (what) => { if (names.includes(what)) then(); };
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, [names.join(), then]);
}

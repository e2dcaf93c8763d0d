// Graphs over time, drawn by uPlot; what they say is told in words, too, for who does not see them.
import uPlot from './vendor/uplot.js';
import { html, useEffect, useRef } from './lib.js';

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// How times are written, by the distance of two marks: alone, and with what else changes with it (see uPlot's axes[].values).
const TIMES = [
  [28 * 86400, '{MMM}', '\n{YYYY}', null, null, null, null, null, 1],
  [86400, '{MM}-{DD}', '\n{YYYY}', null, null, null, null, null, 1],
  [60, '{HH}:{mm}', '\n{YYYY}-{MM}-{DD}', null, '\n{MM}-{DD}', null, null, null, 1],
  [1, ':{ss}', '\n{YYYY}-{MM}-{DD} {HH}:{mm}', null, '\n{MM}-{DD} {HH}:{mm}', null, '\n{HH}:{mm}', null, 1],
];

/**
 * `series`: [label, colour variable, array of values, dashed?]; `times`: seconds since 1970; `show`: value → text; `span`: from when to when,
 * where that is not what there is; `least`: what the scale goes to at least.
 */
export function Chart({ times, series, show, label, span, least = 1 }) {
  const shown = useRef(null);
  shown.current = span;
  const holder = useRef(null);
  const plot = useRef(null);
  const data = [times, ...series.map(([, , values]) => values)];
  useEffect(() => {
    const draw = () => {
      if (plot.current) plot.current.destroy();
      const axis = { stroke: colour('--muted'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, font: '12px system-ui' };
      plot.current = new uPlot({
        width: holder.current.clientWidth, height: 190, cursor: { y: false }, legend: { show: false },
        scales: { x: { range: (_, low, high) => shown.current ?? [low, high] }, y: { range: (_, low, high) => [0, Math.max((high ?? 0) * 1.1, least)] } },
        axes: [{ ...axis, values: TIMES }, { ...axis, size: 70, values: (_, ticks) => ticks.map(show) }],
        series: [{}, ...series.map(([name, variable, , dashed]) => ({ label: name, stroke: colour(variable), width: dashed ? 1 : 2, dash: dashed ? [5, 4] : undefined, fill: dashed ? undefined : `${colour(variable)}22`, points: { show: false } }))],
      }, data, holder.current);
    };
    draw();
    const sized = new ResizeObserver(() => plot.current.setSize({ width: holder.current.clientWidth, height: 190 }));
    sized.observe(holder.current);
    const themed = new MutationObserver(draw);
    themed.observe(document.documentElement, { attributes: true, attributeFilter: ['data-theme'] });
    return () => { sized.disconnect(); themed.disconnect(); plot.current.destroy(); plot.current = null; };
  }, []);
  useEffect(() => { if (plot.current) plot.current.setData(data); });
  const last = (values) => values.findLast((value) => value !== null && value !== undefined);
  const said = (values) => (last(values) === undefined ? '–' : show(last(values)));
  const words = series.map(([name, , values]) => `${name} ${said(values)}`).join(', ');
  return html`<div><div class="legend" aria-hidden="true">${series.map(([name, variable, values, dashed]) => html`<span><i class=${`${variable === '--read' ? 'i-read' : 'i-write'}${dashed ? ' dashed' : ''}`}></i>${name} <b>${said(values)}</b></span>`)}</div>
    <div class="chart" ref=${holder} role="img" aria-label=${`${label}: now ${words}`}></div></div>`;
}

// Graphs over time, drawn by uPlot; what they say is told in words, too, for who does not see them.
import uPlot from './vendor/uplot.js';
import { html, useEffect, useRef } from './lib.js';

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** `series`: [label, colour variable, array of values]; `times`: seconds since 1970; `show`: value → text. */
export function Chart({ times, series, show, label }) {
  const holder = useRef(null);
  const plot = useRef(null);
  const data = [times, ...series.map(([, , values]) => values)];
  useEffect(() => {
    const draw = () => {
      if (plot.current) plot.current.destroy();
      const axis = { stroke: colour('--muted'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, font: '12px system-ui' };
      plot.current = new uPlot({
        width: holder.current.clientWidth, height: 190, cursor: { y: false }, legend: { show: false },
        scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.1, 1)] } },
        axes: [axis, { ...axis, size: 70, values: (_, ticks) => ticks.map(show) }],
        series: [{}, ...series.map(([name, variable]) => ({ label: name, stroke: colour(variable), width: 2, fill: `${colour(variable)}22`, points: { show: false } }))],
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
  const words = series.map(([name, , values]) => `${name} ${show(values.at(-1) ?? 0)}`).join(', ');
  return html`<div><div class="legend" aria-hidden="true">${series.map(([name, variable, values]) => html`<span><i class=${variable === '--read' ? 'i-read' : 'i-write'}></i>${name} <b>${show(values.at(-1) ?? 0)}</b></span>`)}</div>
    <div class="chart" ref=${holder} role="img" aria-label=${`${label}: now ${words}`}></div></div>`;
}

// <time-chart>: sizes over time, drawn with uPlot. Data in attributes: `times` (epoch seconds, JSON),
// `series` (JSON [{label, values}]), `units` (JSON list of five or six unit names).

// Steps of the axes: powers of two, since bytes are told in binary units; and times worth their own label.
const BYTES = Array.from({ length: 56 }, (_none, power) => 2 ** power);
const DAY = 86400;
const TIMES = [60, 300, 900, 3600, 3 * 3600, 6 * 3600, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 91 * DAY, 365 * DAY];

const COLOURS = ["#4f9cf9", "#22b07d", "#8b95a5"];

function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

class TimeChart extends HTMLElement {
  async connectedCallback() {
    const { default: Plot } = await import("./vendor/uplot.js");
    if (!this.isConnected) return;
    this.Plot = Plot;
    this.draw();
    this.redraw = () => this.draw();
    addEventListener("themechange", this.redraw);
    this.resizing = new ResizeObserver(() => this.plot.setSize(this.room()));
    this.resizing.observe(this);
  }

  disconnectedCallback() {
    removeEventListener("themechange", this.redraw);
    this.resizing?.disconnect();
    this.plot?.destroy();
  }

  room() {
    return { width: Math.max(240, this.clientWidth), height: 190 };
  }

  /** Bytes with a binary unit, in the page's language. */
  size(value) {
    const units = JSON.parse(this.getAttribute("units"));
    let step = 0;
    while (Math.abs(value) >= 1024 && step < units.length - 1) {
      value /= 1024;
      step += 1;
    }
    const digits = step && value < 100 ? 1 : 0;
    const text = new Intl.NumberFormat(document.documentElement.lang, { maximumFractionDigits: digits });
    return `${text.format(value)} ${units[step]}`;
  }

  draw() {
    this.plot?.destroy();
    const series = JSON.parse(this.getAttribute("series"));
    const axis = {
      stroke: token("--muted"),
      font: "12px Inter, system-ui",
      grid: { stroke: token("--line"), width: 1 },
      ticks: { stroke: token("--line") },
    };
    const times = JSON.parse(this.getAttribute("times"));
    const short = times.at(-1) - times[0] < 3 * DAY; // then a day would be the label of many ticks
    const locale = { en: "en-GB" }[document.documentElement.lang] ?? document.documentElement.lang;
    const shown = { day: "numeric", month: "short", ...(short && { hour: "2-digit", minute: "2-digit" }) };
    const label = new Intl.DateTimeFormat(locale, shown);
    const whole = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });
    this.plot = new this.Plot(
      {
        ...this.room(),
        cursor: { y: false },
        legend: { show: series.length > 1 },
        scales: { y: { range: (_plot, _low, high) => [0, (high || 1) * 1.1] } },
        axes: [
          {
            ...axis,
            space: short ? 110 : 70,
            incrs: TIMES,
            values: (_plot, values) => values.map((value) => label.format(value * 1000)),
          },
          { ...axis, size: 78, incrs: BYTES, values: (_plot, values) => values.map((value) => this.size(value)) },
        ],
        series: [
          {
            label: this.getAttribute("time-label"),
            value: (_plot, value) => (value === null ? "–" : whole.format(value * 1000)),
          },
          ...series.map(({ label }, index) => ({
            label,
            stroke: COLOURS[index],
            fill: `${COLOURS[index]}22`,
            width: 2,
            points: { show: series[index].values.length < 40, size: 6 },
            value: (_plot, value) => (value === null ? "–" : this.size(value)),
          })),
        ],
      },
      [times, ...series.map(({ values }) => values)],
      this,
    );
  }
}

customElements.define("time-chart", TimeChart);

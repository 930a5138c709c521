// <time-chart>: sizes over time, drawn with uPlot. Data in attributes: `times` (epoch seconds, JSON),
// `series` (JSON [{label, values}]), `units` (JSON list of five or six unit names).

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
    const day = new Intl.DateTimeFormat(document.documentElement.lang, { day: "numeric", month: "short" });
    this.plot = new this.Plot(
      {
        ...this.room(),
        cursor: { y: false },
        legend: { show: series.length > 1 },
        scales: { y: { range: (_plot, _low, high) => [0, (high || 1) * 1.1] } },
        axes: [
          { ...axis, space: 70, values: (_plot, values) => values.map((value) => day.format(value * 1000)) },
          { ...axis, size: 78, values: (_plot, values) => values.map((value) => this.size(value)) },
        ],
        series: [
          { label: this.getAttribute("time-label") },
          ...series.map(({ label }, index) => ({
            label,
            stroke: COLOURS[index],
            fill: `${COLOURS[index]}22`,
            width: 2,
            points: { show: series[index].values.length < 40, size: 6 },
            value: (_plot, value) => (value === null ? "" : this.size(value)),
          })),
        ],
      },
      [JSON.parse(this.getAttribute("times")), ...series.map(({ values }) => values)],
      this,
    );
  }
}

customElements.define("time-chart", TimeChart);

/* The curve of surprisal while it grows; drawn once a frame, however fast tokens come. */

export class Pace {
  constructor(holder) {
    this.holder = holder;
    this.values = [];
    this.asked = false;
    this.plot = null;
    new ResizeObserver(() => this.plot && this.plot.setSize({ width: holder.clientWidth, height: 140 })).observe(holder);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.plot && this.plot.redraw(false, true));
  }

  clear() {
    this.values = [];
    if (this.plot) this.plot.destroy();
    this.plot = null;
  }

  add(surprisal) {
    this.values.push(typeof surprisal === "number" ? surprisal : null);
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.asked = false;
    if (!this.values.length || !this.holder.clientWidth) return;
    const data = [this.values.map((_, i) => i), this.values];
    if (this.plot) return this.plot.setData(data);
    const colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
    const axis = { stroke: colour("soft"), font: "11px system-ui, sans-serif", grid: { stroke: colour("hair"), width: 1 }, ticks: { show: false }, gap: 6 };
    this.plot = new uPlot(
      {
        width: this.holder.clientWidth,
        height: 140,
        padding: [9, 8, 0, 0],
        legend: { show: false },
        cursor: { show: false },
        scales: {
          x: { time: false, range: () => [-0.5, Math.max(this.values.length - 0.5, 15.5)] },
          y: { range: (u, low, high) => [0, Math.max(1, (high || 0) * 1.15)] },
        },
        axes: [
          { ...axis, size: 22, space: 44, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], grid: { show: false } },
          { ...axis, size: 34, space: 28 },
        ],
        series: [{}, { stroke: colour("accent"), width: 1.75, fill: colour("wash"), points: { show: (u) => u.data[0].length <= 60, size: 5, fill: colour("accent") } }],
      },
      data,
      this.holder,
    );
  }
}

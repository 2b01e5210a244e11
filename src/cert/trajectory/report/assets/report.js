"use strict";
(() => {
  const root = document.documentElement;
  const all = JSON.parse(document.getElementById("data").textContent);
  const tip = element("div", "tip");
  tip.id = "tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.querySelector("main").append(tip);
  root.classList.add("js");

  /* ---- small things ---- */

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function colour(name) {
    return getComputedStyle(root).getPropertyValue("--" + name).trim();
  }

  function power(value) {
    const [mantissa, exponent] = value.toExponential(1).split("e");
    const raised = [...String(Number(exponent))].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]));
    return mantissa + " × 10" + raised.join("");
  }

  function number(value) {
    if (value === null || value === undefined) return "not measured";
    const size = Math.abs(value);
    if (size && (size < 1e-3 || size >= 1e6)) return (value < 0 ? "−" : "") + power(size);
    const text = size >= 1000 ? size.toFixed(0) : String(Number(size.toPrecision(4)));
    return (value < 0 ? "−" : "") + text;
  }

  function probability(logprob) {
    if (logprob === null || logprob === undefined) return "not measured";
    const p = Math.exp(logprob);
    if (p > 0.9995) return "> 99.9 %";
    if (p >= 0.1) return (100 * p).toFixed(1) + " %";
    if (p >= 0.001) return Number((100 * p).toPrecision(2)) + " %";
    return p > 0 ? power(p) : "0";
  }

  function minus(value) {
    return value === null ? null : -value;
  }

  function entropyText(data, i) {
    const lower = data.entropy[i];
    if (!data.entropy_upper || lower === null) return number(lower);
    const upper = data.entropy_upper[i];
    if (upper === null) return "at least " + number(lower);
    return lower === upper ? number(lower) : number(lower) + " to " + number(upper);
  }

  /* ---- the card of one token ---- */

  function fillTip(data, i) {
    const head = element("div", "tip-head");
    const token = element("bdi", "tip-token", data.labels[i]);
    head.append(token, element("span", "tip-place", "token " + i + ", id " + data.ids[i]));
    const list = element("dl");
    const facts = [
      ["probability", probability(minus(data.surprisal[i]))],
      ["surprisal", number(data.surprisal[i])],
      ["margin", number(data.margin[i])],
      ["entropy", entropyText(data, i)],
      ["surprise so far", number(data.cumulative[i])],
      ["energy", number(data.energy[i])],
    ];
    for (const [name, value] of facts) list.append(element("dt", "", name), element("dd", "", value));
    tip.replaceChildren(head, list, ...alternatives(data, i));
  }

  function alternatives(data, i) {
    const ids = data.top[i];
    if (!ids.length) return [element("p", "tip-note", "No alternatives were recorded.")];
    const grid = element("div", "tip-top");
    ids.forEach((id, k) => {
      const name = id in data.names ? data.names[id] : "id " + id;
      alternative(grid, name, data.top_logprob[i][k], data.rank[i] === k + 1);
    });
    const rank = data.rank[i];
    if (rank !== null && rank <= ids.length) return [grid];
    alternative(grid, data.labels[i], minus(data.surprisal[i]), true);
    const place = rank === null ? "not among the " + data.top_k + " likeliest" : "number " + rank + " by probability";
    return [grid, element("p", "tip-note", "The chosen token is " + place + ".")];
  }

  function alternative(grid, name, logprob, chosen) {
    const mark = chosen ? " chosen" : "";
    const bar = element("span", "bar" + mark);
    const fill = element("i");
    fill.style.width = (logprob === null ? 0 : 100 * Math.exp(logprob)).toFixed(2) + "%";
    bar.append(fill);
    grid.append(
      element("bdi", "name" + mark, (chosen ? "▸ " : "   ") + name),
      bar,
      element("span", "p" + mark, probability(logprob)),
    );
  }

  /* A token that is broken over two lines has a box on each. */
  function widest(token) {
    return [...token.getClientRects()].reduce((a, b) => (b.width > a.width ? b : a), token.getClientRects()[0]);
  }

  function placeTip(token) {
    tip.hidden = false;
    tip.style.left = tip.style.top = "";
    const gap = 10;
    const box = widest(token);
    const { offsetWidth: width, offsetHeight: height } = tip;
    if (matchMedia("(max-width: 40rem)").matches) {
      const covered = box.bottom + gap - (innerHeight - height);
      if (covered > 0 && tip.classList.contains("held")) scrollBy(0, covered);
      return;
    }
    const below = box.bottom + gap + height <= innerHeight || box.top < height + gap;
    /* Beside the curves, the card keeps to the column of the text. */
    const column = token.closest(".text").getBoundingClientRect();
    const edge = column.width >= width ? column.right : innerWidth - 8;
    const left = Math.max(8, Math.min(box.left - 24, edge - width));
    tip.style.left = left + "px";
    tip.style.top = Math.max(8, below ? box.bottom + gap : box.top - gap - height) + "px";
  }

  function hideTip() {
    tip.hidden = true;
    tip.classList.remove("held");
  }

  /* ---- one curve ---- */

  function columns(data, chart) {
    const values = data[chart.key];
    const banded = chart.key === "entropy" && data.entropy_upper;
    const over = values.map((v) => (chart.guide !== null && v !== null && v > chart.guide ? v : null));
    if (chart.stepped) return steps(values);
    const shown = [values.map((_, i) => i), values, chart.advisory ? values.map(() => null) : over];
    return banded ? [...shown, data.entropy_upper] : shown;
  }

  /* Each value as a stair one token wide, with the token in its middle. */
  function steps(values) {
    const edges = [...values.map((_, i) => i - 0.5), values.length - 0.5];
    return [edges, [...values, values[values.length - 1]], edges.map(() => null)];
  }

  function line(chart, count) {
    return {
      stroke: () => colour("accent"),
      width: 1.75,
      paths: chart.stepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
      points: { show: count <= 80 && !chart.stepped, size: 5, fill: () => colour("accent") },
    };
  }

  function axis(side, extra) {
    return {
      side,
      stroke: () => colour("soft"),
      font: "11px system-ui, sans-serif",
      grid: { stroke: () => colour("hair"), width: 1 },
      ticks: { show: false },
      gap: 6,
      ...extra,
    };
  }

  /* Powers of ten up to e^max, thinned so that their labels stay apart. */
  function decades(max) {
    const most = Math.floor(max / Math.LN10);
    const by = Math.max(1, Math.ceil(most / 4));
    return Array.from({ length: Math.floor(most / by) + 1 }, (_, k) => k * by * Math.LN10);
  }

  function short(value) {
    const rounded = Math.round(value);
    if (rounded < 1e3) return String(Number(value.toPrecision(3)));
    return rounded < 1e6 ? Math.round(rounded / 1e3) + "k" : power(value).replace(/^.*× /, "");
  }

  function axes(chart) {
    const first = axis(3, { size: 38, space: 26 });
    const steps = axis(2, { size: 22, space: 44, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], grid: { show: false } });
    if (chart.key !== "surprisal") return [steps, first];
    const right = axis(1, {
      scale: "y",
      size: 46,
      grid: { show: false },
      splits: (u) => decades(u.scales.y.max),
      values: (u, at) => at.map((v) => short(Math.exp(v))),
    });
    return [steps, first, right];
  }

  function drawGuide(u, chart) {
    if (chart.guide === null) return;
    const { ctx, bbox } = u;
    const y = Math.round(u.valToPos(chart.guide, "y", true)) + 0.5;
    const scale = devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = colour(chart.advisory ? "soft" : "fail");
    ctx.lineWidth = scale;
    ctx.setLineDash([5 * scale, 4 * scale]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.restore();
  }

  function ceiling(data, chart) {
    const seen = [...data[chart.key], chart.guide, chart.key === "entropy" && data.entropy_upper].flat();
    return 1.22 * Math.max(0.1, ...seen.filter((v) => typeof v === "number"));
  }

  function curve(holder, data, chart, onMove) {
    const count = data.ids.length;
    const top = ceiling(data, chart);
    const series = [
      {},
      line(chart, count),
      { paths: () => null, points: { show: true, size: count > 400 ? 4 : 7, fill: () => colour("fail"), stroke: () => colour("fail") } },
    ];
    const banded = chart.key === "entropy" && data.entropy_upper;
    if (banded) series.push({ stroke: () => colour("accent"), width: 1, points: { show: false } });
    const plot = new uPlot(
      {
        width: Math.max(holder.clientWidth, 120),
        height: holder.clientHeight || 132,
        padding: [4, chart.key === "surprisal" ? 0 : 46, 0, 0],
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 9, show: (u, i) => (i === 1 && !chart.stepped ? undefined : false) } },
        scales: { x: { time: false, range: () => [-0.5, count - 0.5] }, y: { range: () => [0, top] } },
        axes: axes(chart),
        series,
        bands: banded ? [{ series: [3, 1], fill: () => colour("wash") }] : [],
        hooks: { draw: [(u) => drawGuide(u, chart)], setCursor: [(u) => onMove(pointed(u, count))] },
      },
      columns(data, chart),
      holder,
    );
    new ResizeObserver(() => {
      if (holder.clientWidth && !root.classList.contains("printing")) fit(plot, holder.clientWidth);
    }).observe(holder);
    return plot;
  }

  function pointed(u, count) {
    if (u.cursor.left < 0) return null;
    return Math.min(Math.max(Math.round(u.posToVal(u.cursor.left, "x")), 0), count - 1);
  }

  function fit(plot, width) {
    plot.setSize({ width, height: plot.height });
  }

  /* ---- one generation: its tokens and its curves move together ---- */

  class Run {
    constructor(section, data) {
      this.data = data;
      this.tokens = [...section.querySelectorAll(".t")];
      this.current = null;
      this.moving = false;
      this.plots = [];
      for (const figure of section.querySelectorAll("figure")) this.addCurve(figure);
      const list = section.querySelector(".tokens");
      if (this.tokens.length) this.addTokens(list);
      for (const link of section.querySelectorAll("a[data-token]")) {
        link.addEventListener("click", (event) => {
          event.preventDefault();
          this.go(Number(link.dataset.token));
        });
      }
    }

    addCurve(figure) {
      const holder = figure.querySelector(".plot");
      if (!holder) return;
      const chart = this.data.charts.find((c) => c.key === figure.dataset.chart);
      const now = figure.querySelector(".now");
      const plot = curve(holder, this.data, chart, (i) => {
        if (!this.moving) this.select(i, null);
      });
      this.plots.push({ plot, chart, now, holder });
    }

    addTokens(list) {
      list.setAttribute("role", "listbox");
      list.setAttribute("aria-orientation", "horizontal");
      list.setAttribute("aria-label", list.dataset.label);
      this.tokens.forEach((token, i) => {
        const p = probability(minus(this.data.surprisal[i]));
        token.setAttribute("role", "option");
        token.setAttribute("aria-selected", "false");
        token.setAttribute("aria-label", this.data.labels[i] + ", probability " + p);
        token.tabIndex = i ? -1 : 0;
        token.index = i;
      });
      const of = (event) => event.target.closest(".t");
      list.addEventListener("mouseover", (event) => of(event) && this.select(of(event).index, of(event)));
      list.addEventListener("mouseleave", () => this.rest());
      list.addEventListener("focusin", (event) => of(event) && this.focused(of(event)));
      list.addEventListener("focusout", () => this.unfocused());
      list.addEventListener("keydown", (event) => this.key(event));
    }

    /* Shows token i everywhere; the card only where the token itself was pointed at. */
    select(i, token) {
      this.mark(i);
      this.moving = true;
      for (const { plot, chart, now } of this.plots) {
        const left = i === null ? -10 : plot.valToPos(i, "x");
        plot.setCursor({ left, top: i === null ? -10 : 1 }, false, false);
        now.textContent = i === null ? "" : this.reading(chart, i);
      }
      this.moving = false;
      if (!token) return hideTip();
      fillTip(this.data, i);
      tip.classList.toggle("held", document.activeElement === token);
      placeTip(token);
    }

    mark(i) {
      if (this.current !== null) this.tokens[this.current].classList.remove("on");
      this.current = i === undefined ? null : i;
      if (this.current !== null) this.tokens[this.current].classList.add("on");
    }

    reading(chart, i) {
      if (chart.key === "entropy") return entropyText(this.data, i);
      const value = this.data[chart.key][i];
      return chart.key === "surprisal" && value !== null
        ? number(value) + ", perplexity " + short(Math.exp(value))
        : number(value);
    }

    rest() {
      const focused = this.tokens.indexOf(document.activeElement);
      if (focused >= 0) this.select(focused, this.tokens[focused]);
      else this.select(null, null);
    }

    focused(token) {
      for (const other of this.tokens) if (other.tabIndex === 0) other.tabIndex = -1;
      token.tabIndex = 0;
      token.setAttribute("aria-selected", "true");
      token.setAttribute("aria-describedby", "tip");
      this.select(token.index, token);
    }

    unfocused() {
      for (const token of this.tokens) {
        if (token.getAttribute("aria-selected") === "true") token.setAttribute("aria-selected", "false");
      }
      this.select(null, null);
    }

    go(i) {
      const smooth = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
      this.tokens[i].focus({ preventScroll: true });
      this.tokens[i].scrollIntoView({ block: "nearest", behavior: smooth });
    }

    key(event) {
      if (event.key === "Escape") return hideTip();
      const last = this.tokens.length - 1;
      const here = this.tokens.indexOf(document.activeElement);
      const steps = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: last };
      const next =
        event.key === "ArrowDown" || event.key === "ArrowUp"
          ? this.otherLine(here, event.key === "ArrowDown" ? 1 : -1)
          : steps[event.key];
      if (here < 0 || next === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.go(Math.min(Math.max(next, 0), last));
    }

    /* The token nearest in the line above or below, as a text cursor would move. */
    otherLine(here, way) {
      const from = this.tokens[here].getBoundingClientRect();
      const centre = from.left + from.width / 2;
      let best = here;
      let least = Infinity;
      let line = null;
      for (let i = here + way; i >= 0 && i < this.tokens.length; i += way) {
        const box = this.tokens[i].getBoundingClientRect();
        const away = (box.top - from.top) * way;
        if (away < from.height / 2) continue;
        if (line === null) line = box.top;
        if ((box.top - line) * way > from.height / 2) break;
        const distance = Math.abs(box.left + box.width / 2 - centre);
        if (distance < least) [least, best] = [distance, i];
      }
      return best;
    }

    redraw(width) {
      for (const { plot, holder } of this.plots) {
        fit(plot, width || holder.clientWidth);
        plot.redraw(false, true);
      }
    }
  }

  const runs = [...document.querySelectorAll("section[data-run]")].map(
    (section) => new Run(section, all[Number(section.dataset.run)]),
  );

  /* ---- the page as a whole ---- */

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => runs.forEach((run) => run.redraw()));
  addEventListener("beforeprint", () => {
    root.classList.add("printing");
    runs.forEach((run) => run.redraw(320));
  });
  addEventListener("afterprint", () => {
    root.classList.remove("printing");
    runs.forEach((run) => run.redraw());
  });
  addEventListener("scroll", () => {
    const token = document.activeElement;
    if (tip.hidden) return;
    if (token && token.classList.contains("t")) placeTip(token);
    else hideTip();
  }, { passive: true });
  document.addEventListener("pointerdown", (event) => {
    const token = document.activeElement;
    if (token && token.classList.contains("t") && !event.target.closest(".t, .tip")) token.blur();
  });
})();

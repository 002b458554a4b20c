"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const plots = new Map();
  let data = JSON.parse(document.getElementById("data").textContent);

  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const fade = (color, alpha) => color + Math.round(alpha * 255).toString(16).padStart(2, "0");
  const shown = (v) => v == null ? "–"
    : Number.isInteger(v) ? v.toLocaleString("en")
    : Math.abs(v) >= 1e4 ? Math.round(v).toLocaleString("en") : String(Number(v.toPrecision(4)));
  const short = (text, most) => text.length > most ? text.slice(0, most - 1) + "…" : text;

  // Dark pages need lighter colours for the same contrast.
  const palette = () => matchMedia("(prefers-color-scheme: dark)").matches
    ? ["#5AB4F0", "#FF8F52", "#3DCEA0", "#E08AD6", "#F0C040", "#9BD8FF", "#B5B5B5", "#A99CF5"] : data.colors;

  function seriesOf(chart, colors) {
    const series = [{ label: chart.xLabel || "at", value: (u, v) => v == null ? "–" : xText(chart, v) }];
    const bands = [];
    const rows = [chart.x];
    for (const band of chart.bands) {
      const color = colors[band.color % colors.length];
      const high = series.length, low = high + 1;
      const range = (u, v, s, i) => i == null || rows[low][i] == null ? "–"
        : `${shown(rows[low][i])} to ${shown(rows[high][i])}`;
      const style = { stroke: fade(color, 0.35), width: 0, points: { show: false }, spanGaps: false };
      series.push({ ...style, label: band.label, value: range, mark: color });
      series.push({ ...style, label: band.label + " (low)", class: "u-edge" });
      bands.push({ series: [high, low], fill: fade(color, band.strong ? 0.3 : 0.14) });
      rows.push(band.high, band.low);
    }
    for (const line of chart.lines) {
      const color = colors[line.color % colors.length];
      const one = { label: line.label, mark: color, stroke: color, width: 2, spanGaps: true, value: (u, v) => shown(v) };
      const count = line.y.reduce((n, v) => n + (v != null), 0);
      if (line.style === "faint") {
        Object.assign(one, { stroke: fade(color, 0.5), width: 1, points: { show: count < 3 } });
      } else if (line.style === "line") {
        one.points = { show: count < 40, size: 5 };
      } else {
        const size = line.style === "points" ? 7 : 12;
        Object.assign(one, { width: 0, paths: () => null, points: { show: true, size, fill: color, stroke: css("--card"), width: 1 } });
      }
      series.push(one);
      rows.push(line.y);
    }
    return { series, bands, rows };
  }

  function xText(chart, v) {
    if (chart.xKind === "names") return (chart.xNames[Math.round(v)] ?? "").split("\n")[0];
    if (chart.xKind === "time") return new Date(v * 1e3).toISOString().slice(0, 19).replace("T", " ");
    return shown(v);
  }

  function axes(chart) {
    const base = { stroke: css("--text"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 },
      font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", labelSize: 18 };
    const x = { ...base, ...(chart.xLabel ? { label: chart.xLabel } : {}), size: 34 };
    if (chart.xKind === "names") {
      x.splits = () => chart.xNames.map((_, i) => i);
      const most = (u) => Math.max(4, Math.floor((u.width - 80) / chart.xNames.length / 6.5));
      x.values = (u) => chart.xNames.map((name) => name.split("\n").map((line) => short(line, most(u))).join("\n"));
      x.size = chart.xNames.some((name) => name.includes("\n")) ? 48 : 34;
    } else if (chart.xKind === "number") {
      x.values = (u, splits) => splits.map(engineering);
    } else if (chart.xKind === "time") {
      x.size = 48;
      x.space = 90;
      x.values = (u, splits) => splits.map((v, i) => {
        const [day, clock] = new Date(v * 1e3).toISOString().slice(0, 19).split("T");
        const before = i ? new Date(splits[i - 1] * 1e3).toISOString().slice(0, 10) : "";
        return day === before ? clock : clock + "\n" + day;
      });
    } else if (chart.xKind === "log") {
      x.values = (u, splits) => splits.map((v) => v == null ? "" : v.toExponential(0).replace("e+", "e"));
    }
    const y = { ...base, label: chart.yLabel, size: 58, values: (u, splits) => splits.map((v) => v == null ? "" : Math.abs(v) >= 1e4 || (v !== 0 && Math.abs(v) < 1e-3) ? engineering(v) : String(Number(v.toPrecision(6)))) };
    return [x, y];
  }

  function engineering(v) {
    if (v == null) return "";
    const size = Math.abs(v);
    if (size >= 1e9) return +(v / 1e9).toPrecision(6) + "G";
    if (size >= 1e6) return +(v / 1e6).toPrecision(6) + "M";
    if (size >= 1e3) return +(v / 1e3).toPrecision(6) + "k";
    return size !== 0 && size < 1e-3 ? v.toExponential(0) : String(+v.toPrecision(6));
  }

  function xRange(chart) {
    if (chart.xKind === "names") return () => [-0.5, chart.xNames.length - 0.5];
    return (u, min, max) => {
      if (min == null) return [0, 1];
      if (min < max) return [min, max];
      return chart.xKind === "log" ? [min / 2, max * 2] : [min - 1, max + 1];
    };
  }

  function draw(chart, place) {
    plots.get(chart.id)?.u.destroy();
    const { series, bands, rows } = seriesOf(chart, palette());
    const width = Math.max(240, place.clientWidth);
    const options = {
      width, height: Math.round(Math.min(330, Math.max(220, width * 0.55))), series, bands, axes: axes(chart),
      scales: { x: { time: chart.xKind === "time", distr: chart.xKind === "log" ? 3 : 1, range: xRange(chart) }, y: { distr: chart.logY ? 3 : 1 } },
      tzDate: (ts) => uPlot.tzDate(new Date(ts * 1e3), "Etc/UTC"),
      cursor: { drag: { x: true, y: false }, ...(chart.linked ? { sync: { key: chart.linked, scales: ["x", null] } } : {}) },
      padding: [12, 18, 0, 0],
      legend: {
        show: chart.lines.length + chart.bands.length <= 14,
        markers: { width: 2, stroke: (u, i) => u.series[i].mark, fill: (u, i) => u.series[i].mark + "55" },
      },
    };
    const u = new uPlot(options, rows, place);
    plots.set(chart.id, { u, chart, place });
  }

  function drawAll() {
    for (const chart of data.charts) {
      const place = document.querySelector(`[data-chart="${chart.id}"] .plot`);
      if (place) draw(chart, place);
    }
  }

  const sized = new ResizeObserver((entries) => {
    for (const { target } of entries)
      for (const { u, place } of plots.values())
        if (place === target && Math.abs(u.width - target.clientWidth) > 1 && target.clientWidth > 0)
          u.setSize({ width: Math.max(240, target.clientWidth), height: u.height });
  });

  function value(row, column) {
    const cell = row.cells[column];
    const text = cell?.dataset.value ?? cell?.textContent.trim() ?? "";
    return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
  }

  function compare(a, b) {
    if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
    return typeof a === "number" ? -1 : 1;
  }

  function sortBy(table, column, descending) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [value(row, column), row]);
    const missing = ([key]) => key === "" || key === "–";
    rows.sort((a, b) => missing(a) - missing(b) || (descending ? -1 : 1) * compare(a[0], b[0]));
    body.append(...rows.map(([, row]) => row));
    [...table.tHead.rows[0].cells].forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }

  function sortable(table) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (head.dataset.sort === undefined) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sortBy(table, column, head.getAttribute("aria-sort") === "ascending"));
    });
  }

  function filter(input) {
    const table = document.getElementById(input.dataset.filter);
    if (!table) return;
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      const text = (row.textContent + " " + (row.dataset.text ?? "")).toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      count += !row.hidden;
    }
    const output = document.querySelector(`output[for="${input.id}"]`);
    if (output) output.textContent = `${count} of ${table.tBodies[0].rows.length}`;
  }

  async function copy(button) {
    const text = button.closest(".command, .copyable").querySelector("code").textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(button.closest(".command, .copyable").querySelector("code"));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  }

  function activate(within) {
    within.querySelectorAll("table.sortable").forEach(sortable);
    within.querySelectorAll("input[data-filter]").forEach((input) => { filter(input); input.addEventListener("input", () => filter(input)); });
    within.querySelectorAll("button.copy").forEach((button) => button.addEventListener("click", () => copy(button)));
  }

  // A live page gets itself again, and takes over what has changed.
  function update(page) {
    data = JSON.parse(page.getElementById("data").textContent);
    for (const part of page.querySelectorAll("[data-live]")) {
      const old = document.getElementById(part.id);
      if (!old || old.innerHTML === part.innerHTML) continue;
      const sorted = [...old.querySelectorAll("th[aria-sort]")].map((head) =>
        [head.closest("table").id, head.cellIndex, head.getAttribute("aria-sort") === "descending"]);
      const open = [...old.querySelectorAll("details")].map((details) => details.open);
      old.replaceChildren(...part.childNodes);
      old.querySelectorAll("details").forEach((details, i) => { details.open = open[i] ?? details.open; });
      activate(old);
      for (const [id, column, descending] of sorted) sortBy(document.getElementById(id), column, descending);
    }
    document.querySelectorAll("input[data-filter]").forEach(filter);
    for (const chart of data.charts) {
      const figure = page.querySelector(`[data-chart="${chart.id}"]`);
      let place = document.querySelector(`[data-chart="${chart.id}"] .plot`);
      if (!place && figure) {
        document.querySelector("[data-charts]")?.append(figure);
        place = figure.querySelector(".plot");
        sized.observe(place);
      }
      if (!place) continue;
      const old = plots.get(chart.id);
      const names = (c) => [...c.bands, ...c.lines].map((s) => s.label).join("\n");
      const same = old && names(old.chart) === names(chart) && old.chart.logY === chart.logY;
      if (!same) { draw(chart, place); continue; }
      const zoomed = old.u.data[0].length && (old.u.scales.x.min > old.u.data[0][0] || old.u.scales.x.max < old.u.data[0].at(-1));
      old.chart = chart;
      const { rows } = seriesOf(chart, palette());
      old.u.setData(rows, !zoomed);
      if (zoomed) old.u.redraw();
    }
  }

  function listen() {
    const source = new EventSource("/events" + location.pathname + location.search);
    let busy = false, again = false;
    source.addEventListener("changed", async () => {
      if (busy) { again = true; return; }
      do {
        busy = true; again = false;
        try {
          const answer = await fetch(location.href);
          if (answer.ok) update(new DOMParser().parseFromString(await answer.text(), "text/html"));
        } catch { /* the server is gone; EventSource tries again */ }
        busy = false;
      } while (again);
    });
    addEventListener("pagehide", () => source.close());
  }

  drawAll();
  document.querySelectorAll(".plot").forEach((place) => sized.observe(place));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  activate(document);
  if (data.live) listen();
})();

// Refreshes the figures in place, draws the charts, copies commands, and leads links out of Airflow's frame.
"use strict";
(() => {
  const figures = document.getElementById("figures");
  const notice = document.getElementById("notice");
  const announcement = document.getElementById("announcement");
  const freshness = document.getElementById("freshness");
  const pause = document.getElementById("pause");
  const every = Number(freshness?.dataset.every) * 1000; // only the main page refreshes itself
  let paused = false;
  let summary = null;
  const sources = new Map(); // what the server last wrote into each part
  for (const part of document.querySelectorAll("[data-part]")) sources.set(part.id, part.innerHTML);

  // --- refreshing: parts that changed are exchanged; focus, open details and the scroll position stay ---

  function exchange(fresh) {
    for (const part of fresh.querySelectorAll("[data-part]")) {
      const old = document.getElementById(part.id);
      if (!old) return false;
      const source = part.innerHTML;
      for (const attribute of part.attributes) old.setAttribute(attribute.name, attribute.value);
      if (sources.get(part.id) === source) continue;
      const open = [...old.querySelectorAll("details[open]")].map((each) => each.id);
      const scrolled = [...old.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
      const focus = old.contains(document.activeElement) ? pathOf(document.activeElement, old) : null;
      old.replaceChildren(...part.childNodes);
      sources.set(part.id, source);
      for (const id of open) old.querySelector(`#${CSS.escape(id)}`)?.setAttribute("open", "");
      [...old.querySelectorAll(".scroll")].forEach((each, number) => (each.scrollLeft = scrolled[number] ?? 0));
      if (focus) at(focus, old)?.focus({ preventScroll: true });
    }
    return true;
  }

  // an element that can have the focus, as what it is called and which of those it is
  const name = (element) => element.id || element.dataset.copy || element.getAttribute("href") || element.textContent;
  const focusable = (part) => [...part.querySelectorAll("a[href], button, summary, [tabindex]")];
  function pathOf(element, part) {
    const same = focusable(part).filter((each) => name(each) === name(element));
    return { called: name(element), number: same.indexOf(element) };
  }
  function at({ called, number }, part) {
    const same = focusable(part).filter((each) => name(each) === called);
    return same[number] ?? same[0];
  }

  function show() {
    const problems = document.getElementById("problems");
    if (!problems) return;
    freshness.textContent = `as of ${problems.dataset.at} UTC` + (paused ? ", paused" : "");
    if (summary !== null && summary !== problems.dataset.summary) announcement.textContent = problems.dataset.summary;
    summary = problems.dataset.summary;
    const errors = Number(problems.dataset.errors);
    document.title = errors ? `(${errors}) Headrace` : "Headrace";
    draw();
  }

  function complain(text) {
    const since = document.getElementById("problems")?.dataset.at;
    const line = text + (since ? ` The figures are those of ${since} UTC.` : "");
    if (notice.textContent !== line) notice.textContent = line;
    notice.hidden = false;
  }

  async function refresh() {
    let answer;
    try {
      answer = await fetch(`figures${location.search}`, { credentials: "same-origin", signal: AbortSignal.timeout(20_000) });
    } catch {
      return complain("Airflow does not answer.");
    }
    if (answer.status === 401) return complain("Your login has ended: log in to Airflow again.");
    const text = await answer.text();
    if (answer.status === 503) return complain(text);
    if (!answer.ok) return complain(`Airflow answered ${answer.status}.`);
    const fresh = new DOMParser().parseFromString(text, "text/html").body;
    if (!exchange(fresh)) figures.replaceChildren(...fresh.childNodes);
    notice.hidden = true;
    notice.textContent = "";
    show();
  }

  async function loop() {
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, every));
      if (!paused && !document.hidden) await refresh();
    }
  }
  document.addEventListener("visibilitychange", () => {
    if (freshness && !document.hidden && !paused) refresh();
  });
  if (pause) pause.hidden = false;
  pause?.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Resume" : "Pause";
    if (paused) show();
    else refresh();
  });

  // --- links and copying ---

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
    const link = event.target.closest("a[data-airflow]");
    if (!link || window.parent === window || event.ctrlKey || event.metaKey || event.shiftKey) return;
    try {
      // Airflow's frame may not navigate the window that it is in; a link of that window may
      const outer = window.parent.document.createElement("a");
      outer.href = link.href;
      window.parent.document.body.append(outer);
      event.preventDefault();
      outer.click();
      outer.remove();
    } catch {
      // another site's frame: the link stays what it is
    }
  });

  async function copy(button) {
    const command = button.dataset.copy;
    try {
      await navigator.clipboard.writeText(command);
    } catch {
      const area = document.createElement("textarea"); // a frame, or http: no clipboard API
      area.value = command;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    const label = button.firstChild;
    label.textContent = "Copied";
    setTimeout(() => (label.textContent = "Copy"), 1500);
  }

  // --- charts ---

  const charts = {};
  let drawn = "";
  const color = (variable) => getComputedStyle(document.documentElement).getPropertyValue(variable).trim();
  const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
  const whole = new Intl.NumberFormat("en");
  const height = 180;

  function draw() {
    const source = document.getElementById("history")?.textContent;
    if (!source || typeof uPlot === "undefined") return;
    const key = source + document.documentElement.dataset.theme;
    if (key === drawn) return;
    drawn = key;
    const history = JSON.parse(source);
    plot("rows", history, `No record was committed in the last ${history.label}.`, true);
    plot("lag", history, `Nothing lagged in the last ${history.label}.`, false);
  }

  // each on top of those after it: the tallest is drawn first, the others in front of it
  function stacked(values) {
    return values.map((counts, number) =>
      counts.map((_, minute) => values.slice(number).reduce((sum, each) => sum + each[minute], 0)),
    );
  }

  function plot(kind, history, nothing, bars) {
    const container = document.getElementById(`${kind}-chart`);
    const names = Object.keys(history[kind]);
    const shape = names.join() + history.label + document.documentElement.dataset.theme;
    const values = names.map((each) => history[kind][each]);
    const data = [history.starts, ...(bars ? stacked(values) : values)];
    if (charts[kind]?.shape === shape) {
      charts[kind].values = values;
      return charts[kind].chart?.setData(data);
    }
    charts[kind]?.chart?.destroy();
    container.replaceChildren();
    container.classList.toggle("quiet", !names.length);
    if (!names.length) {
      container.textContent = nothing;
      charts[kind] = { shape };
      return;
    }
    const axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
    const series = names.map((label) => {
      const stroke = color(`--series-${(history.datasets.indexOf(label) % 8) + 1}`);
      return {
        label,
        stroke,
        width: bars ? 0 : 2,
        fill: bars ? stroke : names.length === 1 ? `${stroke}22` : undefined,
        paths: bars ? uPlot.paths.bars({ size: [0.8, 14], align: 1 }) : undefined,
        points: { show: false },
        // what the dataset had, not the height that it was stacked to
        value: (_, __, number, index) => {
          const value = index == null ? null : charts[kind].values[number - 1][index];
          return value == null ? "–" : whole.format(value);
        },
      };
    });
    const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 16);
    const day = (seconds) => new Date(seconds * 1000).toLocaleDateString("en", { day: "numeric", month: "short", timeZone: "UTC" });
    const days = history.bucket_s > 300; // the range has several
    const time = { label: "UTC", value: (_, value) => (value == null ? "–" : days ? `${day(value)} ${clock(value)}` : clock(value)) };
    const options = {
      width: container.clientWidth,
      height,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      cursor: { sync: { key: "headrace" }, drag: { x: false, y: false }, points: { size: 7 } },
      scales: { x: { range: (_, first, last) => [first, last + history.bucket_s] }, y: { range: (_, __, most) => [0, Math.max(most * 1.05, 1)] } },
      axes: [
        { ...axis, size: 28, space: 60, values: (_, times) => times.map((each) => (days && each % 86400 === 0 ? day(each) : clock(each))) },
        { ...axis, size: 52, values: (_, values) => values.map((value) => short.format(value)) },
      ],
      series: [time, ...series],
    };
    charts[kind] = { shape, values };
    charts[kind].chart = new uPlot(options, data, container);
  }

  new ResizeObserver(() => {
    for (const [kind, { chart }] of Object.entries(charts)) {
      const width = document.getElementById(`${kind}-chart`).clientWidth;
      if (chart && width && chart.width !== width) chart.setSize({ width, height });
    }
  }).observe(document.body);
  document.addEventListener("themechange", draw);

  if (freshness) {
    show();
    loop();
  }
})();

// The candlestick chart: history comes as the reader scrolls left, the newest as server-sent events; all of it works by keyboard.
"use strict";
(() => {
  const box = document.getElementById("chart");
  if (!box || !window.LightweightCharts) return;
  const PAGE = 2000, MARGIN = 10, DRAWN = 300, FEW = 150;  // candles a page; bars left of which more is asked for; slots of one gap drawn; fewer fill the width
  const L = window.LightweightCharts;
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const legend = document.getElementById("legend"), spoken = document.getElementById("spoken");
  const isWhole = !box.dataset.start && !box.dataset.end;
  let candles = [], points = [], index = new Map(), revised = new Set(), gaps = [], signals = [];
  let loading = false, complete = !isWhole, cursor = null, step = 60, precision = 2;

  const isDate = (seconds) => step >= 86400 && seconds % 86400 === 0;  // a day of UTC is that day for every reader
  const zone = (seconds) => document.documentElement.dataset.zone === "utc" || isDate(seconds) ? {timeZone: "UTC"} : {};
  const text = (seconds) => new Date(seconds * 1000).toLocaleString(undefined, {dateStyle: "short", ...(isDate(seconds) ? {} : {timeStyle: "short"}), ...zone(seconds)});
  const tick = (seconds, kind) => {
    const at = new Date(seconds * 1000), where = zone(seconds);
    if (kind === 0) return at.toLocaleDateString(undefined, {year: "numeric", ...where});
    if (kind === 1) return at.toLocaleDateString(undefined, {month: "short", ...where});
    if (kind === 2) return at.toLocaleDateString(undefined, {month: "short", day: "numeric", ...where});
    return at.toLocaleTimeString(undefined, {hour: "2-digit", minute: "2-digit", hour12: false, ...where});
  };
  // Narrower than a pixel, candles are merged to be drawn: ten thousand of them fit, and cost what a screenful costs.
  const chart = L.createChart(box, {autoSize: true, layout: {attributionLogo: false}, localization: {timeFormatter: text},
    rightPriceScale: {minimumWidth: 76},  // as wide without prices as with them: else all is laid out twice
    timeScale: {timeVisible: true, rightOffset: 2, tickMarkFormatter: tick, enableConflation: true, minBarSpacing: 0.05, maxBarSpacing: 40}});
  let bands = null;
  const volumes = chart.addSeries(L.HistogramSeries, {priceFormat: {type: "volume"}, priceScaleId: "volume", lastValueVisible: false, priceLineVisible: false});
  const prices = chart.addSeries(L.CandlestickSeries, {});
  chart.priceScale("volume").applyOptions({scaleMargins: {top: 0.8, bottom: 0}});
  const marks = L.createSeriesMarkers(prices, []);

  const row = (item) => ({time: Date.parse(item.ts) / 1000, open: item.open, high: item.high, low: item.low, close: item.close, volume: item.volume,
    isDerived: false, lacks: ""});
  const lacks = (parts, expected) => parts < expected ? `${parts} of ${expected} parts` : "";
  const rowsOf = (found) => found.t.map((time, i) => ({time, open: found.o[i], high: found.h[i], low: found.l[i], close: found.c[i], volume: found.v[i],
    isDerived: Boolean(found.parts), lacks: found.parts ? lacks(found.parts[i], found.parts_expected[i]) : ""}));
  const dressed = (item, look) => {
    if (revised.has(item.time)) return {...item, color: look.revised, wickColor: look.revised, borderColor: look.revised};
    return item.isDerived ? {...item, color: look.ground} : item;  // hollow: made of shorter candles
  };
  const looks = () => ({ground: style("--ground"), text: style("--text"), line: style("--line"), up: style("--up"), down: style("--down"),
    volume: style("--volume"), revised: style("--revised"), gap: style("--gap-band"), accent: style("--accent")});
  const decimals = () => {  // as many as the provider quotes
    const most = Math.max(0, ...candles.slice(-200).flatMap((item) => [item.open, item.close]).map((value) => (String(value).split(".")[1] || "").length));
    return most > 10 ? 5 : most;  // more than any market quotes: the rest of a division
  };
  const holes = () => {  // open times of missing candles within what is loaded
    const first = candles[0]?.time, last = candles.at(-1)?.time, out = new Set();
    for (const gap of gaps) {
      if (gap.end <= first || gap.start >= last) continue;
      const until = Math.min(gap.end, gap.start + DRAWN * step);
      for (let at = gap.start; at < until; at += step) if (at > first && at < last && !index.has(at)) out.add(at);
    }
    return out;
  };
  const draw = () => {
    const look = looks(), missing = holes();
    points = candles.map((item) => dressed(item, look));
    if (missing.size) points = [...points, ...[...missing].map((time) => ({time}))].sort((a, b) => a.time - b.time);
    prices.setData(points);
    volumes.setData(candles.map((item) => ({time: item.time, value: item.volume})));
    if (missing.size && !bands) {
      bands = chart.addSeries(L.HistogramSeries, {priceScaleId: "gaps", lastValueVisible: false, priceLineVisible: false, color: look.gap});
      chart.priceScale("gaps").applyOptions({scaleMargins: {top: 0, bottom: 0}});
    }
    bands?.setData([...missing].sort((a, b) => a - b).map((time) => ({time, value: 1})));
    const first = candles[0]?.time, last = candles.at(-1)?.time;
    marks.setMarkers(signals.filter((item) => item.time >= first && item.time <= last).map((item) => ({time: item.time, text: item.text, id: item.id,
      position: item.side === "sell" ? "aboveBar" : "belowBar", shape: item.side === "sell" ? "arrowDown" : "arrowUp", color: look.accent})));
  };
  const paint = () => {
    const look = looks(), isHollow = Boolean(candles.at(-1)?.isDerived);
    precision = decimals();
    chart.applyOptions({layout: {background: {color: look.ground}, textColor: look.text, attributionLogo: false},
      grid: {vertLines: {color: look.line}, horzLines: {color: look.line}}, rightPriceScale: {borderColor: look.line}, timeScale: {borderColor: look.line}});
    prices.applyOptions({upColor: look.up, downColor: look.down, wickUpColor: look.up, wickDownColor: look.down, borderUpColor: look.up,
      borderDownColor: look.down, priceFormat: {type: "price", precision, minMove: 10 ** -precision},
      lastValueVisible: !isHollow, priceLineVisible: !isHollow});  // they would have the ground's colour
    volumes.applyOptions({color: look.volume});
    bands?.applyOptions({color: look.gap});
    draw();
  };
  const ask = async (url) => {
    const answer = await fetch(url, {headers: {accept: "application/json"}});
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return answer.json();
  };
  const merge = (rows) => {
    const isFirst = !index.size;
    for (const item of rows) index.set(item.time, item);
    candles = [...index.values()];
    if (!isFirst) candles.sort((a, b) => a.time - b.time);  // an answer is ascending
    step = candles.slice(1, 500).reduce((least, item, i) => Math.min(least, item.time - candles[i].time), Infinity);
    if (!Number.isFinite(step)) step = 60;
  };
  const words = (item) => {
    const gain = item.open ? (item.close / item.open - 1) * 100 : 0, marksOf = [revised.has(item.time) && "revised", item.isDerived && "derived", item.lacks].filter(Boolean);
    return [["", text(item.time)], ...["open", "high", "low", "close"].map((name) => [name[0].toUpperCase(), item[name].toFixed(precision)]), ["V", Number(item.volume.toPrecision(6))],
      ["", `${gain >= 0 ? "+" : ""}${gain.toFixed(2)} %`], ...marksOf.map((word) => ["", word])];
  };
  const say = (item) => {
    if (!item) return;
    legend.replaceChildren(...words(item).map(([name, value]) => {
      const part = document.createElement("span");
      part.textContent = name ? `${name} ${value} ` : `${value} `;
      return part;
    }));
  };
  const point = (time) => {
    cursor = time;
    const item = index.get(time);
    if (!item) return;
    chart.setCrosshairPosition(item.close, time, prices);
    say(item);
    spoken.textContent = words(item).map(([name, value]) => `${{O: "open", H: "high", L: "low", C: "close", V: "volume"}[name] || ""} ${value}`).join(", ");
  };
  const older = async () => {
    if (loading || complete || !candles.length) return;
    loading = true;
    try {
      const rows = rowsOf(await ask(`${box.dataset.url}&limit=${PAGE}&end=${encodeURIComponent(new Date(candles[0].time * 1000).toISOString())}`));
      complete = rows.length === 0;
      if (rows.length) {
        const seen = chart.timeScale().getVisibleLogicalRange(), before = points.length;
        merge(rows);
        draw();
        const more = points.length - before;
        if (seen) chart.timeScale().setVisibleLogicalRange({from: seen.from + more, to: seen.to + more});
        box.dataset.ready = String(candles.length);
      }
    } catch (error) {
      spoken.textContent = legend.textContent = `older candles did not come: ${error.message}`;
    } finally {
      loading = false;
    }
  };
  const follow = () => {
    const source = new EventSource(box.dataset.live);
    source.addEventListener("candles", (event) => {
      const rows = JSON.parse(event.data).map(row), last = candles.at(-1), before = candles.length;
      const changed = rows.filter((item) => JSON.stringify(index.get(item.time)) !== JSON.stringify(item));
      if (!changed.length) return;
      merge(rows);
      const isPlain = changed.length === 1 && changed[0].time >= last.time && changed[0].time <= last.time + step && candles.length - before <= 1;
      if (!isPlain) draw();  // an older one changed, or a hole was filled: painted anew
      else { prices.update(dressed(changed[0], looks())); volumes.update({time: changed[0].time, value: changed[0].volume}); points.push(changed[0]); }
      box.dataset.live_at = String(candles.at(-1).time);
      if (cursor === null) say(candles.at(-1));
    });
  };
  const told = (url) => url ? ask(url) : [];  // a derived timeframe has no gaps, revisions, signals or stream of its own
  const begin = async () => {
    const range = (box.dataset.start ? `&start=${encodeURIComponent(box.dataset.start)}` : "") + (box.dataset.end ? `&end=${encodeURIComponent(box.dataset.end)}` : "");
    const [found, missing, changed, said] = await Promise.all([
      ask(`${box.dataset.url}&limit=${isWhole ? PAGE : 10000}${range}`), told(box.dataset.gaps), told(box.dataset.revisions), told(box.dataset.signals)]);
    const started = performance.now();
    signals = said.map((item) => ({time: Date.parse(item.ts) / 1000, side: item.side, text: item.confidence ? `${item.side} ${Math.round(item.confidence)}` : item.side, id: item.pipeline}))
      .sort((a, b) => a.time - b.time);
    gaps = missing.filter((item) => item.cause !== "market_closed").map((item) => ({start: Date.parse(item.start) / 1000, end: Date.parse(item.end) / 1000}));
    revised = new Set(changed.map((item) => Date.parse(item.ts) / 1000));
    merge(rowsOf(found));
    paint();
    if (!isWhole || points.length < FEW) chart.timeScale().fitContent();
    say(candles.at(-1));
    requestAnimationFrame(() => requestAnimationFrame(() => {
      box.dataset.painted = String(Math.round(performance.now() - started));
      box.dataset.ready = String(candles.length);
    }));
  };
  chart.subscribeCrosshairMove((event) => { if (event.sourceEvent) cursor = event.time ?? null; say(index.get(event.time) || candles.at(-1)); });
  chart.subscribeClick((event) => { if (typeof event.hoveredObjectId === "string") location.href = `/pipelines/${encodeURIComponent(event.hoveredObjectId)}#signals`; });
  chart.timeScale().subscribeVisibleLogicalRangeChange((range) => { if (range && range.from < MARGIN) older(); });
  document.addEventListener("themechange", paint);
  document.addEventListener("zonechange", () => {
    paint();
    say(index.get(cursor) || candles.at(-1));
  });
  box.addEventListener("keydown", (event) => {
    const scale = chart.timeScale(), range = scale.getVisibleLogicalRange();
    if (!range || !candles.length || event.ctrlKey || event.metaKey || event.altKey) return;
    const width = range.to - range.from, part = width / 10, at = cursor === null ? candles.length : candles.findIndex((item) => item.time === cursor);
    const show = (place) => {
      const item = candles[Math.min(Math.max(place, 0), candles.length - 1)], bar = points.findIndex((found) => found.time === item.time);
      if (bar < range.from) scale.setVisibleLogicalRange({from: bar - part, to: bar - part + width});
      if (bar > range.to) scale.setVisibleLogicalRange({from: bar + part - width, to: bar + part});
      point(item.time);
    };
    const moves = {PageUp: [-width, -width], PageDown: [width, width], "+": [part, -part], "=": [part, -part], "-": [-part, part]};
    if (event.key === "ArrowLeft") show(at - 1);
    else if (event.key === "ArrowRight") show(at + 1);
    else if (event.key === "End") { scale.scrollToRealTime(); point(candles.at(-1).time); }
    else if (event.key === "Home") { scale.setVisibleLogicalRange({from: 0, to: width}); point(candles[0].time); older(); }
    else if (event.key === "Escape") { cursor = null; chart.clearCrosshairPosition(); say(candles.at(-1)); }
    else if (moves[event.key]) scale.setVisibleLogicalRange({from: range.from + moves[event.key][0], to: range.to + moves[event.key][1]});
    else return;
    event.preventDefault();
  });
  begin().then(() => { if (isWhole && box.dataset.live) follow(); }).catch((error) => { spoken.textContent = legend.textContent = `the candles did not come: ${error.message}`; });
})();

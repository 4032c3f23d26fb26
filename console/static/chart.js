// The candlestick chart: history is loaded as the reader scrolls left, the newest come as server-sent events.
"use strict";
(() => {
  const box = document.getElementById("chart");
  if (!box || !window.LightweightCharts) return;
  const PAGE = 2000, MARGIN = 10;
  const L = window.LightweightCharts;
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const legend = document.getElementById("legend");
  const zone = document.getElementById("zone");
  let local = false, candles = [], revised = new Set(), gaps = [], signals = [], loading = false, complete = Boolean(box.dataset.start || box.dataset.end);

  const text = (seconds) => {
    const at = new Date(seconds * 1000);
    return local ? at.toLocaleString() : at.toISOString().slice(0, 16).replace("T", " ");
  };
  const chart = L.createChart(box, {autoSize: true, layout: {attributionLogo: false}, localization: {timeFormatter: text},
    timeScale: {timeVisible: true, tickMarkFormatter: (seconds) => text(seconds).slice(local ? 0 : 5)}});
  const prices = chart.addSeries(L.CandlestickSeries, {});
  const volumes = chart.addSeries(L.HistogramSeries, {priceFormat: {type: "volume"}, priceScaleId: "volume", lastValueVisible: false, priceLineVisible: false});
  chart.priceScale("volume").applyOptions({scaleMargins: {top: 0.8, bottom: 0}});
  const marks = L.createSeriesMarkers(prices, []);

  const paint = () => {
    chart.applyOptions({layout: {background: {color: style("--ground")}, textColor: style("--text"), attributionLogo: false},
      grid: {vertLines: {color: style("--line")}, horzLines: {color: style("--line")}}});
    prices.applyOptions({upColor: style("--up"), downColor: style("--down"), wickUpColor: style("--up"), wickDownColor: style("--down"), borderVisible: false});
    draw();
  };
  const row = (item) => ({time: Date.parse(item.ts) / 1000, open: item.open, high: item.high, low: item.low, close: item.close, volume: item.volume});
  const draw = () => {
    const shade = style("--volume"), special = style("--revised");
    prices.setData(candles.map((item) => revised.has(item.time) ? {...item, color: special, wickColor: special} : item));
    volumes.setData(candles.map((item) => ({time: item.time, value: item.volume, color: shade})));
    const times = candles.map((item) => item.time);
    const stop = times.at(-1) ?? -Infinity;
    const said = signals.filter((item) => item.time >= times[0] && item.time <= stop).map((item) => ({time: item.time, text: item.text,
      position: item.side === "sell" ? "aboveBar" : "belowBar", shape: item.side === "sell" ? "arrowDown" : "arrowUp", color: style("--accent")}));
    const holes = gaps.map((gap) => times.findLast((time) => time < gap)).filter((time, i, all) => time !== undefined && all.indexOf(time) === i)
      .map((time) => ({time, position: "belowBar", shape: "square", color: style("--gap"), text: "gap"}));
    marks.setMarkers([...holes, ...said].sort((a, b) => a.time - b.time));
  };
  const ask = async (url) => {
    const answer = await fetch(url, {headers: {accept: "application/json"}});
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return answer.json();
  };
  const merge = (rows) => {
    const all = new Map(candles.map((item) => [item.time, item]));
    for (const item of rows.map(row)) all.set(item.time, item);
    candles = [...all.values()].sort((a, b) => a.time - b.time);
  };
  const say = (item) => {
    legend.textContent = item ? `${text(item.time)}  O ${item.open}  H ${item.high}  L ${item.low}  C ${item.close}  V ${item.volume}` : "";
  };
  const older = async () => {
    if (loading || complete || !candles.length) return;
    loading = true;
    try {
      const rows = await ask(`${box.dataset.url}&limit=${PAGE}&end=${encodeURIComponent(new Date(candles[0].time * 1000).toISOString())}`);
      complete = rows.length === 0;
      if (rows.length) {
        const seen = chart.timeScale().getVisibleLogicalRange();
        merge(rows);
        draw();
        if (seen) chart.timeScale().setVisibleLogicalRange({from: seen.from + rows.length, to: seen.to + rows.length});
      }
    } catch (error) {
      legend.textContent = `older candles did not come: ${error.message}`;
    } finally {
      loading = false;
    }
  };
  const follow = () => {
    const source = new EventSource(box.dataset.live);
    source.addEventListener("candles", (event) => {
      const before = candles, last = candles.at(-1);
      merge(JSON.parse(event.data));
      const added = candles.length - before.length, same = candles.at(-1 - added);
      const isPlain = added === 0 ? before.length < 2 || same.time === last.time && candles.at(-2).close === before.at(-2).close
        : added === 1 && JSON.stringify(same) === JSON.stringify(last);
      if (!isPlain) draw();  // an older one changed, or a hole was filled: painted anew
      else for (const item of candles.slice(-1)) { prices.update(item); volumes.update({time: item.time, value: item.volume, color: style("--volume")}); }
      box.dataset.live_at = String(candles.at(-1)?.time ?? "");
    });
  };
  const begin = async () => {
    const range = (box.dataset.start ? `&start=${encodeURIComponent(box.dataset.start)}` : "") + (box.dataset.end ? `&end=${encodeURIComponent(box.dataset.end)}` : "");
    const [rows, missing, changed, told] = await Promise.all([
      ask(`${box.dataset.url}&limit=${range ? 10000 : PAGE}${range}`), ask(box.dataset.gaps), ask(box.dataset.revisions), ask(box.dataset.signals)]);
    signals = told.map((item) => ({time: Date.parse(item.ts) / 1000, side: item.side, text: `${item.side} ${Math.round(item.confidence)}`}));
    gaps = missing.filter((item) => item.cause !== "market_closed").map((item) => Date.parse(item.start) / 1000);
    revised = new Set(changed.map((item) => Date.parse(item.ts) / 1000));
    merge(rows);
    paint();
    say(candles.at(-1));
    box.dataset.ready = String(candles.length);
  };
  chart.subscribeCrosshairMove((event) => say(candles.find((item) => item.time === event.time) || candles.at(-1)));
  chart.timeScale().subscribeVisibleLogicalRangeChange((range) => { if (range && range.from < MARGIN) older(); });
  document.addEventListener("themechange", paint);
  zone.addEventListener("click", () => { local = !local; zone.textContent = local ? "Local time" : "UTC"; paint(); say(candles.at(-1)); });
  box.addEventListener("keydown", (event) => {
    const scale = chart.timeScale(), range = scale.getVisibleLogicalRange();
    if (!range) return;
    const width = range.to - range.from, step = width / 10;
    const moves = {ArrowLeft: [-step, -step], ArrowRight: [step, step], "+": [step, -step], "-": [-step, step]};
    if (event.key === "End") scale.scrollToRealTime();
    else if (event.key === "Home") { scale.setVisibleLogicalRange({from: 0, to: width}); older(); }
    else if (moves[event.key]) scale.setVisibleLogicalRange({from: range.from + moves[event.key][0], to: range.to + moves[event.key][1]});
    else return;
    event.preventDefault();
  });
  begin().then(() => { if (!box.dataset.start && !box.dataset.end) follow(); }).catch((error) => { legend.textContent = `the candles did not come: ${error.message}`; });
})();

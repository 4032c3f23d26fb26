"""One peer's replay in a process of its own: ten TA-Lib indicators and a crossover over the same candles.

`python benchmarks/replay_worker.py PEER ROWS REPEATS` prints one line of JSON: seconds of each repeat, and how many crossings.
Making the candles and importing the peer is not timed; the first repeat, in which JIT compilers do their work, is left out.
"""

# ruff: noqa: PLC0415, PD011  each peer's libraries are only in its own environment
from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.market import START_US, candles

INDICATORS = (
    ("fast", "EMA", {"timeperiod": 12}), ("slow", "EMA", {"timeperiod": 26}), ("sma", "SMA", {"timeperiod": 50}),
    ("rsi", "RSI", {"timeperiod": 14}), ("bands", "BBANDS", {"timeperiod": 20}), ("atr", "ATR", {"timeperiod": 14}),
    ("macd", "MACD", {}), ("stoch", "STOCH", {}), ("adx", "ADX", {"timeperiod": 14}), ("cci", "CCI", {"timeperiod": 20}))
MARKET = ("high", "low", "close")
ON_MARKET = {"ATR", "STOCH", "ADX", "CCI"}


def candlelake(columns: Any) -> Any:
    """Return a function that replays: sampling against the candle-by-candle path and digests of inputs included."""
    import polars as pl

    from core.candles import CANDLE_SCHEMA
    from core.interval import Interval
    from core.series import Series
    from core.timeframe import Grid
    from pipeline.definition import read_definition
    from pipeline.engine import Engine
    from pipeline.frozen import chapter_of
    from pipeline.replay import Stretch, replay
    from pipeline.stages import Context

    series = Series.parse("bench", "BTC/USD", "1m")
    engine = Engine(read_definition({
        "name": "bench",
        "indicators": [
            {"plugin": "talib", "name": name, "parameters": {"function": function, "options": options}}
            for name, function, options in INDICATORS],
        "signals": [{"plugin": "crossover", "parameters": {"fast": "fast", "slow": "slow"}}]}))
    frame = pl.DataFrame({"ts": pl.Series(columns.ts).cast(pl.Datetime("us", "UTC")), **columns.values}).with_columns(
        spread=pl.lit(None, pl.Float64)).cast(dict(CANDLE_SCHEMA))
    context = Context("bench", 1, series, Grid(series.timeframe), "crypto")
    chapter, length = engine.definition.chapter, engine.definition.chapter * series.timeframe.length_us
    last = int(columns.ts[-1])

    def run() -> int:
        first = chapter_of(context.grid, int(columns.ts[0]), chapter).start_us
        stretches = (
            Stretch(frame, chapter_of(context.grid, start, chapter), Interval(start, start + length))
            for start in range(first, last + 1, length))
        return len(replay(engine, context, stretches, total=len(frame)).signals)

    return run


def vectorbt(columns: Any) -> Any:
    """Return a function that runs vectorbt's TA-Lib indicators and its crossings; no portfolio."""
    import pandas as pd
    import vectorbt as vbt

    index = pd.to_datetime(columns.ts, unit="us", utc=True)
    data = {name: pd.Series(columns.values[name], index=index) for name in ("open", "high", "low", "close", "volume")}
    made = {function: vbt.IndicatorFactory.from_talib(function) for _, function, _ in INDICATORS}

    def run() -> int:
        found = {
            name: made[function].run(*(data[part] for part in (MARKET if function in ON_MARKET else ("close",))), **options)
            for name, function, options in INDICATORS}
        up, down = found["fast"].real_crossed_above(found["slow"].real), found["fast"].real_crossed_below(found["slow"].real)
        return int(up.sum() + down.sum())

    return run


def backtesting(columns: Any) -> Any:
    """Return a function that runs a strategy of backtesting.py; it simulates orders, too: that is what it is made for."""
    import pandas as pd
    import talib
    from backtesting import Backtest, Strategy
    from backtesting.lib import crossover

    frame = pd.DataFrame({name.capitalize(): column for name, column in columns.values.items()}, index=pd.to_datetime(columns.ts, unit="us"))
    counted = [0]

    class Crossing(Strategy):
        def init(self) -> None:
            parts = {"high": self.data.High, "low": self.data.Low, "close": self.data.Close}
            for name, function, options in INDICATORS:
                inputs = [parts[part] for part in (MARKET if function in ON_MARKET else ("close",))]
                setattr(self, name, self.I(getattr(talib, function), *inputs, **options, plot=False))

        def next(self) -> None:
            if crossover(self.fast, self.slow):
                counted[0] += 1
                self.position.close()
                self.buy(size=1)
            elif crossover(self.slow, self.fast):
                counted[0] += 1
                self.position.close()

    test = Backtest(frame, Crossing, cash=1e12, commission=0.0, finalize_trades=True)

    def run() -> int:
        counted[0] = 0
        test.run()
        return counted[0]

    return run


def main() -> None:
    peer, rows, repeats = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    run = {"candlelake": candlelake, "vectorbt": vectorbt, "backtesting": backtesting}[peer](candles(7, 0, rows))
    seconds, crossings = [], 0
    for _ in range(repeats + 1):
        began = time.perf_counter()
        crossings = run()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"peer": peer, "seconds": seconds[1:] or seconds, "crossings": crossings, "from": int(START_US), "numpy": np.__version__}))


if __name__ == "__main__":
    main()

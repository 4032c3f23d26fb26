"""Lines of a stream for readers that are slow, stand still or leave."""

import json
import os
import threading

from cli.stream_lines import StreamLines


def test_a_reader_that_stands_still_holds_nobody_up_and_is_told_what_it_missed():
    """Lines beyond the limit are left out; whoever reads later gets all others in order, and in the others' place how many they were."""
    ours, theirs = os.pipe()
    lines = StreamLines(theirs, lambda: None, limit=1000)
    count = 20_000
    for number in range(count):
        lines.put(b'{"type":"tick","n":%d}\n' % number)  # a pipe holds a fraction of them: one that waits would wait for ever
    reading = []

    def read():
        with os.fdopen(ours, "rb") as file:
            reading.extend(json.loads(line) for line in file)

    reader = threading.Thread(target=read)
    reader.start()
    lines.close(60)
    os.close(theirs)
    reader.join(60)
    got = [item["n"] for item in reading if item["type"] == "tick"]
    skipped = sum(item["lines"] for item in reading if item["type"] == "skipped")
    assert got == sorted(got)
    assert len(got) + skipped == count
    assert skipped == lines.skipped > count // 2


def test_a_reader_that_leaves_is_noticed():
    """When nobody reads any more, whoever streams is told, and lines that come after it harm nothing."""
    ours, theirs = os.pipe()
    gone = threading.Event()
    lines = StreamLines(theirs, gone.set)
    os.close(ours)
    lines.put(b"{}\n")
    assert gone.wait(60)
    lines.put(b"{}\n")
    lines.close()
    os.close(theirs)

"""Prefect's server as far as the console asks it, on loopback: one run, which is finished."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NUMBER = "0b6f4c1e-0000-4000-8000-000000000000"


@contextmanager
def answering_prefect(busy=0, is_running=False, ended=None):
    """Yield its address and the list of what was ordered, as (deployment, config); the first `busy` orders are answered 503.

    The one run is finished (at `ended`), or runs until it is cancelled.
    """
    ordered, keys, cancelled = [], [], []

    class Answers(BaseHTTPRequestHandler):
        """Answers the few calls that the console makes."""

        def log_message(self, *_):
            """Stay silent."""

        def answer(self, body):
            """Send JSON."""
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            """Give a deployment, or the run with what it was ordered with."""
            if "/deployments/" in self.path:
                self.answer({"id": self.path.rsplit("/", 1)[1]})
            else:
                state = {"name": "Completed", "type": "COMPLETED", "message": "done"}
                if is_running:
                    state = {"name": "Cancelling" if cancelled else "Running", "type": "CANCELLING" if cancelled else "RUNNING", "message": ""}
                self.answer({"id": NUMBER, "name": "brave-otter", "state": state, "end_time": ended,
                             "parameters": {"config": ordered[-1][1] if ordered else {}}})

        def do_POST(self):
            """Take an order; give artifacts and log lines."""
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if "/create_flow_run" in self.path:
                keys.append(body["idempotency_key"])
                if len(keys) <= busy:
                    self.send_response(503)
                    self.send_header("content-length", "0")
                    self.end_headers()
                    return
                assert len(set(keys[:busy + 1])) == 1, "asked again with another key"
                ordered.append((self.path.split("/")[3], body["parameters"]["config"]))
                self.answer({"id": NUMBER, "name": "brave-otter", "state": {"name": "Scheduled", "type": "SCHEDULED"}})
            elif "/set_state" in self.path:
                cancelled.append(body["state"]["type"])
                self.answer({"status": "ACCEPT"})
            elif "/artifacts/" in self.path:
                self.answer([{"type": "table", "key": "signals", "description": "signals", "data": json.dumps([{"side": "buy", "price": 1.5}])},
                             {"type": "progress", "key": "progress", "description": "", "data": 62.5}])
            else:
                self.answer([{"message": "<b>62 % of the candles</b>"}])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api", ordered
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()

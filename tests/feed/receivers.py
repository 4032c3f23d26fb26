"""A mail server and a webhook receiver on loopback, for the tests of notifications."""

import socketserver
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(server):
    """Serve in a thread until the end; gives the port."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Mail:
    """A mail server: what it took, and how it answers. `refuse` is the answer to RCPT, say b'550 no'."""

    def __init__(self):
        self.taken, self.refuse, self.commands = [], None, []

    def handler(self):
        """Return the class that talks SMTP."""
        mail = self

        class Talk(socketserver.StreamRequestHandler):
            def handle(self):
                self.wfile.write(b"220 test\r\n")
                to = []
                for line in self.rfile:
                    word = line.strip().upper()
                    mail.commands.append(line.strip().decode())
                    if word.startswith(b"EHLO"):
                        self.wfile.write(b"250 test\r\n")
                    elif word.startswith(b"RCPT"):
                        to.append(line.strip().decode()[9:-1])
                        self.wfile.write((mail.refuse or b"250 ok") + b"\r\n")
                    elif word == b"DATA":
                        self.wfile.write(b"354 go\r\n")
                        body = b""
                        while (part := self.rfile.readline()) != b".\r\n":
                            body += part
                        mail.taken.append((to, body.decode()))
                        to = []
                        self.wfile.write(b"250 taken\r\n")
                    elif word == b"QUIT":
                        self.wfile.write(b"221 bye\r\n")
                        return
                    else:
                        self.wfile.write(b"250 ok\r\n")

        return Talk


class Hook:
    """A webhook receiver: what it got, and the status that it answers."""

    def __init__(self):
        self.got, self.status = [], 200

    def handler(self):
        """Return the class that talks HTTP."""
        hook = self

        class Talk(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                hook.got.append(({name.lower(): value for name, value in self.headers.items()}, body, self.path))
                self.send_response(hook.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                """Say nothing."""

        return Talk


@contextmanager
def mail_server():
    """Run a mail server; gives it and its port."""
    mail = Mail()
    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), mail.handler())) as port:
        yield mail, port


@contextmanager
def webhook_receiver():
    """Run a webhook receiver; gives it and its port."""
    hook = Hook()
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), hook.handler())) as port:
        yield hook, port

"""A receiver of webhooks: Python's own HTTP server, and the official library for Standard
Webhooks. It tells of each request in a line of JSON on stdout, after a first line that tells
its URL, and ends when stdin does."""

import base64
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import webhooks


class OverBytes(webhooks.Webhook):
    """The library takes bodies for UTF-8 text. What Standard Webhooks says holds for bytes, and
    this is what one who receives others has to write: all but the text is still the library's."""

    def verify_bytes(self, body, headers):
        self.body = body
        self.verify("", headers, json_parse=False)

    def sign(self, msg_id, timestamp, data):
        signed = f"{msg_id}.{int(timestamp.timestamp())}.".encode() + self.body
        return "v1," + base64.b64encode(webhooks.hmac_data(self._whsecret, signed)).decode()


secret = os.environ["RECEIVER_SECRET"]
plain = webhooks.Webhook(secret)
tell = threading.Lock()


def verify(body, headers):
    """Returns whether the body is signed, why not, and whether the library was enough."""
    try:
        try:
            plain.verify(body, headers, json_parse=False)
            return True, "", True
        except UnicodeDecodeError:
            OverBytes(secret).verify_bytes(body, headers)
            return True, "", False
    except webhooks.WebhookVerificationError as e:
        return False, str(e), True
    except Exception as e:  # a signature that is no base64, say
        return False, repr(e), True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        verified, error, enough = verify(body, dict(self.headers.items()))
        line = json.dumps({
            "id": self.headers.get("webhook-id", ""),
            "verified": verified,
            "error": error,
            "helped": not enough,
            "body": base64.b64encode(body).decode(),
            "headers": self.headers.items(),
        })
        with tell:
            print(line, flush=True)
        self.send_response(204 if verified else 401)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


server = Server(("127.0.0.1", 0), Handler)
print(json.dumps({"url": f"http://127.0.0.1:{server.server_port}/"}), flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()

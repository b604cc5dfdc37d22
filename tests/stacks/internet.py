"""The world outside a test machine: one name, one address, a few files. Run as a program inside a namespace.

    python -m tests.stacks.internet ADDRESS NAME

answers DNS on port 53 (NAME is ADDRESS, everything else does not exist) and HTTP on port 80.
"""

from __future__ import annotations

import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


def sql(*tables: str) -> str:
    return "-- made up\n" + "".join(f"CREATE TABLE `{each}` (id INT);\n" for each in tables)


FILES = {
    "CreateTableStatement-mysql.sql": sql(*(f"table_{number}" for number in range(8))),
    "SpringBatchJobRepositorySchema-mysql.sql": sql(*(f"BATCH_{number}" for number in range(9))),
    "pinpoint-telegraf.conf": '[[outputs.http]]\n  url = "http://127.0.0.1:15200/telegraf"\n',
}


def body(path: str) -> str | None:
    """A file by the last part of its path; any JSON is a table's."""
    name = path.rpartition("/")[2]
    return FILES.get(name, '{"replicasPerPartition": "3"}\n' if name.endswith(".json") else None)


def answer(query: bytes, name: str, address: str) -> bytes:
    asked = dns.message.from_wire(query)
    said = dns.message.make_response(asked, recursion_available=True)
    (question,) = asked.question
    if question.name.to_text(omit_final_dot=True).lower() != name:
        said.set_rcode(dns.rcode.NXDOMAIN)
    elif question.rdtype == dns.rdatatype.A:
        said.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", address))
    return said.to_wire()


def main(address: str, name: str) -> None:
    class Names(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, socket = self.request
            socket.sendto(answer(data, name, address), self.client_address)

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = body(self.path)
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write((found or "404: Not Found").encode())

        def log_message(self, format: str, *words: object) -> None:
            """Nobody reads it."""

    names = cast(socketserver.BaseServer, socketserver.ThreadingUDPServer((address, 53), Names))
    threading.Thread(target=names.serve_forever, daemon=True).start()
    ThreadingHTTPServer((address, 80), Pages).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])

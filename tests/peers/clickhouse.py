"""ClickHouse's HTTP interface in front of the engine that chdb-core holds, for tests.

Statements arrive as HTTP requests, run in the engine inside this process, and are answered as a ClickHouse server
answers them: the same bytes, error codes and statuses. Each request has an engine session of its own, so its
`database` and settings reach no other one. The data lie in `--data` and outlive the process.

`/control` makes it fail on demand. `POST {"faults": [...]}` sets the faults, replacing those before; each is
`{"match": SQL, "kind": K, "times": N}` and meets the next N statements (1 when left out, all when null) that contain
SQL. Quotes and spacing are not compared: `INSERT INTO events` also meets "INSERT INTO `events`(`a`) FORMAT RowBinary".
The kinds, with what else they take:

    error                   answers `code` (252) and the status that belongs to it, or `status`; does not execute
    cut_before              closes the connection instead of executing
    cut_after               executes, then closes the connection instead of answering
    hang                    waits `seconds`, then closes the connection instead of executing
    delay                   waits `seconds`, then executes and answers
    reject_rows_containing  answers `code` (469) when the inserted data hold `text`; without `times`, always

`GET /control` tells what has been asked so far, by table where it was an insert, and how often each fault was met.
`written_rows` are a server's: with the rows that materialized views made of those inserted. `bytes` are of the data
that came beside the statement.

With `--cluster NAME` there is a cluster of that name with this server as its only node, so Distributed tables work. The
engine has no Keeper: `ON CLUSTER NAME` is left out of a statement, and a Replicated table becomes one of the same
engine that is not.
"""

import argparse
import base64
import copy
import json
import os
import re
import signal
import sys
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from chdb.session import Session

# Parameters of a request that are not settings of the engine.
NOT_SETTINGS = {
    "buffer_size", "client_protocol_version", "compress", "database", "decompress", "default_format",
    "enable_http_compression", "password", "query", "query_id", "quota_key", "role", "session_check", "session_id",
    "session_timeout", "stacktrace", "user", "wait_end_of_query",
}
# What this front cannot do; to go on without it would give wrong results.
UNSUPPORTED = ("compress", "decompress", "session_id")

# ClickHouse: src/Server/HTTP/exceptionCodeToHTTPStatus.cpp; all other codes are 500.
STATUS_OF_CODES = {
    400: (6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 376, 427, 675, 676),
    401: (194,),
    403: (192, 193, 497, 512, 516),
    404: (46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511),
    408: (159,),
    411: (381,),
    413: (229,),
    415: (779,),
    501: (48,),
    503: (76, 209, 439),
}
STATUS = {code: status for status, codes in STATUS_OF_CODES.items() for code in codes}

AUTHENTICATION_FAILED = 516
NOT_IMPLEMENTED = 48
SYNTAX_ERROR = 62
TOO_MANY_PARTS = 252
UNKNOWN_EXCEPTION = 1002
VIOLATED_CONSTRAINT = 469

KINDS = ("error", "cut_before", "cut_after", "hang", "delay", "reject_rows_containing")

LEADING_COMMENTS = re.compile(r"^(?:\s+|--[^\n]*\n|/\*.*?\*/)+", re.DOTALL)
INSERT = re.compile(r"\s*INSERT\s+INTO\s+(?:TABLE\s+)?([^\s(]+)", re.IGNORECASE)
FORMAT_AT_END = re.compile(r"\s*\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
VALUES_AT_END = re.compile(r"\s*\bVALUES\s*;?\s*$", re.IGNORECASE)
# Where a semicolon is no end of a statement: comments, strings and quoted names.
OPAQUE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|`(?:\\.|[^`\\])*`", re.DOTALL)

# The statements that may be meant for a whole cluster.
DDL = re.compile(r"(?:ALTER|CREATE|DELETE|DROP|EXCHANGE|OPTIMIZE|RENAME|SYSTEM|TRUNCATE)\b", re.IGNORECASE)
ON_CLUSTER = re.compile(r"\bON\s+CLUSTER\s+[`'\"]?(\w+)[`'\"]?", re.IGNORECASE)
REPLICATED = re.compile(r"\bReplicated(\w*MergeTree\b)(\s*\(\s*'[^']*'\s*,\s*'[^']*'\s*,?)?")
CLUSTER = """<clickhouse>
    <!-- Nothing listens there: it says which node of the cluster this process is. -->
    <tcp_port>9000</tcp_port>
    <remote_servers><{name}><shard><replica>
        <host>127.0.0.1</host><port>9000</port>
    </replica></shard></{name}></remote_servers>
</clickhouse>
"""

# How long a stop waits for statements that still run.
STOP_SECONDS = 8
# Bodies are read in pieces of this size at most, and the engine gets them in pieces of this size.
PIECE = 1 << 20


class Refused(Exception):
    """A statement's answer is an error."""

    def __init__(self, code, text, status=None):
        super().__init__(text)
        self.code = code
        self.status = status or STATUS.get(code, 500)


class Cut(Exception):
    """The connection is closed without an answer."""


class Statement:
    """One request: its SQL, the data that follow it (None unless it is an insert), and how to run it."""

    def __init__(self, parameters, body, read_only):
        self.database = parameters.get("database", "")
        self.format = parameters.get("default_format", "TabSeparated")
        self.params = {name[6:]: value for name, value in parameters.items() if name.startswith("param_")}
        self.settings = {
            name: value
            for name, value in parameters.items()
            if name not in NOT_SETTINGS and not name.startswith("param_")
        }
        self.read_only = read_only
        url_sql = parameters.get("query", "")
        insert = INSERT.match(url_sql)
        self.data = body if insert and body else None
        sql = url_sql if self.data is not None else url_sql + "\n" + body.decode("utf-8", "replace")
        self.sql = LEADING_COMMENTS.sub("", sql, count=1).strip()
        insert = INSERT.match(self.sql)
        self.table = unquoted(insert.group(1)).rpartition(".")[2] if insert else None


class Engine:
    """The engine; statements may run side by side."""

    def __init__(self, data, cluster):
        self.cluster = cluster
        self.place = data
        if cluster is not None:
            config = os.path.join(data, "cluster.xml")
            with open(config, "w", encoding="utf-8") as file:
                file.write(CLUSTER.format(name=cluster))
            self.place = f"{data}?config-file={config}"
        # Keeps the engine up while no request has a session.
        self.root = Session(self.place)
        self.version = self.root.query("SELECT version()", "TabSeparated").bytes().decode().strip()
        self.idle = threading.Condition()
        self.running = 0
        self.stopped = False

    def run(self, statement):
        """Executes; returns the answer's bytes and the number of rows written, by views too."""
        with self.idle:
            if self.stopped:
                raise Cut
            self.running += 1
        try:
            return self.run_in_session(statement)
        except (RuntimeError, ValueError) as error:
            raise refusal(str(error)) from error
        finally:
            with self.idle:
                self.running -= 1
                self.idle.notify_all()

    def run_in_session(self, statement):
        session = Session(self.place)
        try:
            if statement.database:
                session.query("USE " + identifier(statement.database))
            settings = dict(statement.settings)
            if statement.read_only:
                settings.setdefault("readonly", "2")
            if settings:
                session.query("SET " + ", ".join(f"{name} = {literal(value)}" for name, value in settings.items()))
            if statement.data is None:
                result = session.query(self.local(statement.sql), statement.format, params=statement.params or None)
                return result.bytes(), result.rows_written() if statement.table else 0
            return b"", self.insert(session, statement)
        finally:
            session.close()

    def local(self, sql):
        """What a statement asks of this node alone, when it is meant for the cluster."""
        if self.cluster is None or not DDL.match(sql):
            return sql
        named = ON_CLUSTER.search(sql)
        if named and named.group(1) == self.cluster:
            sql = ON_CLUSTER.sub("", sql, count=1)
        return REPLICATED.sub(lambda found: found.group(1) + ("(" if found.group(2) else ""), sql)

    @staticmethod
    def insert(session, statement):
        sql, data_format = statement.sql, "Values"
        named = FORMAT_AT_END.search(sql)
        if named:
            sql, data_format = sql[: named.start()], named.group(1)
        else:
            sql = VALUES_AT_END.sub("", sql)
        with session.send_insert(sql, data_format) as inserter:
            for start in range(0, len(statement.data), PIECE):
                inserter.append(statement.data[start : start + PIECE])
            return inserter.finish().rows_written

    def name_of(self, code):
        return self.root.query(f"SELECT errorCodeToName({code:d}::UInt32)", "TabSeparated").bytes().decode().strip()

    def stop(self):
        with self.idle:
            self.stopped = True
            self.idle.wait_for(lambda: self.running == 0, STOP_SECONDS)
        self.root.close()


class Control:
    """The faults that are set, and the counts of what was asked."""

    def __init__(self):
        self.lock = threading.Lock()
        self.faults = []
        self.counts = {"queries": 0, "inserts": 0, "written_rows": 0, "bytes": 0, "errors": 0, "tables": {}}

    def set_faults(self, faults):
        checked = []
        for fault in faults:
            if fault.get("kind") not in KINDS:
                raise ValueError(f"kind must be one of {', '.join(KINDS)}: {fault}")
            always = fault["kind"] == "reject_rows_containing"
            fault = {"match": "", "times": None if always else 1, "used": 0, **fault}
            fault["pattern"] = unquoted(fault["match"])
            checked.append(fault)
        with self.lock:
            self.faults = checked

    def next_fault(self, statement):
        sql = unquoted(statement.sql)
        with self.lock:
            for fault in self.faults:
                if fault["pattern"] not in sql:
                    continue
                if fault["times"] is not None and fault["used"] >= fault["times"]:
                    continue
                if fault["kind"] == "reject_rows_containing" and not holds(statement, fault["text"]):
                    continue
                fault["used"] += 1
                return dict(fault)
        return None

    def count(self, statement, rows, failed):
        with self.lock:
            self.counts["errors"] += failed
            if statement.table is None:
                self.counts["queries"] += 1
                return
            fresh = {"inserts": 0, "written_rows": 0, "bytes": 0, "errors": 0, "settings": {}}
            table = self.counts["tables"].setdefault(statement.table, fresh)
            table["settings"] = statement.settings
            table["errors"] += failed
            if failed:
                return
            size = len(statement.data) if statement.data is not None else 0
            for counts in (self.counts, table):
                counts["inserts"] += 1
                counts["written_rows"] += rows
                counts["bytes"] += size

    def report(self):
        with self.lock:
            report = copy.deepcopy(self.counts)
            report["faults"] = [{key: fault[key] for key in fault if key != "pattern"} for fault in self.faults]
        return report


class Server(ThreadingHTTPServer):
    # A client that comes back after a fault opens many connections at once.
    request_queue_size = 128

    def __init__(self, port, engine, user, password):
        super().__init__(("127.0.0.1", port), Request)
        self.engine = engine
        self.control = Control()
        self.user = user
        self.password = password

    def handle_error(self, request, client_address):
        # A client may go away at any time, which is its right.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Answers are written as head and body; together they would wait for the client's delayed acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self):
        self.serve(read_only=True)

    def do_POST(self):
        self.serve(read_only=False)

    def serve(self, read_only):
        url = urllib.parse.urlsplit(self.path)
        parameters = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        try:
            body = self.read_body()
            if url.path in ("/ping", "/replicas_status"):
                self.answer(200, b"Ok.\n")
            elif url.path == "/control":
                self.serve_control(read_only, body)
            elif url.path != "/":
                self.answer(404, f"There is no handle {self.path}\n".encode())
            elif read_only and not parameters.get("query"):
                self.answer(200, b"Ok.\n")
            else:
                self.serve_statement(parameters, body, read_only)
        except Refused as refused:
            self.answer_refusal(refused)
        except Cut:
            self.close_connection = True

    def read_body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self.read_chunks()
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            raise Cut
        return body

    def read_chunks(self):
        body = bytearray()
        while True:
            line = self.rfile.readline(PIECE)
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError:
                # The client gave up in the middle; a server drops what it has of such an insert.
                raise Cut from None
            if size == 0:
                while self.rfile.readline(PIECE).strip():
                    pass
                return bytes(body)
            chunk = self.rfile.read(size)
            if len(chunk) < size or self.rfile.readline(PIECE) != b"\r\n":
                raise Cut
            body += chunk

    def serve_control(self, read_only, body):
        if not read_only:
            try:
                self.server.control.set_faults(json.loads(body)["faults"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self.answer(400, f"not a list of faults: {error!r}\n".encode())
                return
        report = json.dumps(self.server.control.report(), indent=2) + "\n"
        self.answer(200, report.encode(), content_type="application/json")

    def serve_statement(self, parameters, body, read_only):
        content_type = self.headers.get("Content-Type", "")
        if content_type.lower().startswith("multipart/form-data"):
            parameters.update(multipart_fields(content_type, body))
            body = b""
        self.check_user(parameters)
        for name in UNSUPPORTED:
            if parameters.get(name, "0") not in ("", "0"):
                raise Refused(NOT_IMPLEMENTED, f"the test server has no {name}")
        statement = Statement(parameters, body, read_only)
        # The engine would run several statements one after the other; a server refuses them.
        if statement.table is None and re.search(r";\s*[^\s;]", OPAQUE.sub("", statement.sql)):
            raise Refused(SYNTAX_ERROR, "Syntax error (Multi-statements are not allowed)")
        fault = self.server.control.next_fault(statement)
        kind = fault["kind"] if fault else None
        if kind in ("hang", "delay"):
            time.sleep(fault.get("seconds", 3600))
        if kind in ("cut_before", "hang"):
            raise Cut
        rows, failed = 0, True
        try:
            if kind == "error":
                raise injected(fault, TOO_MANY_PARTS)
            if kind == "reject_rows_containing":
                raise injected(fault, VIOLATED_CONSTRAINT)
            answer, rows = self.server.engine.run(statement)
            failed = False
        finally:
            self.server.control.count(statement, rows, failed)
            if kind == "cut_after":
                raise Cut
        self.answer(200, answer)

    def check_user(self, parameters):
        server = self.server
        if server.user is None:
            return
        user = self.headers.get("X-ClickHouse-User") or parameters.get("user")
        password = self.headers.get("X-ClickHouse-Key") or parameters.get("password")
        scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                user, _, password = base64.b64decode(encoded).decode().partition(":")
            except ValueError:
                user = None
        if (user or "default", password or "") != (server.user, server.password):
            text = "Authentication failed: password is incorrect, or there is no user with such name."
            raise Refused(AUTHENTICATION_FAILED, f"{user or 'default'}: {text}")

    def answer_refusal(self, refused):
        text = str(refused)
        if not text.startswith("Code:"):
            name = self.server.engine.name_of(refused.code)
            text = f"Code: {refused.code}. DB::Exception: {text}" + (f" ({name})" if name else "")
        if "(version " not in text:
            text += f" (version {self.server.engine.version} (official build))"
        self.answer(refused.status, text.encode() + b"\n", exception_code=refused.code)

    def answer(self, status, body, content_type="text/plain; charset=UTF-8", exception_code=None):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-ClickHouse-Query-Id", str(uuid.uuid4()))
        if exception_code is not None:
            self.send_header("X-ClickHouse-Exception-Code", str(exception_code))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        status = args[1] if len(args) > 1 else ""
        if not str(status).startswith("2"):
            super().log_message(format, *args)


def injected(fault, default_code):
    return Refused(fault.get("code", default_code), fault.get("message", "asked for by the test"), fault.get("status"))


def refusal(text):
    """The engine's error without what Python's layer puts before it."""
    start = text.find("Code: ")
    code = re.match(r"Code: (\d+)", text[start:]) if start >= 0 else None
    if code:
        return Refused(int(code.group(1)), text[start:].strip())
    return Refused(UNKNOWN_EXCEPTION, text.strip())


def holds(statement, text):
    if statement.table is None:
        return False
    data = statement.data if statement.data is not None else statement.sql.encode()
    return text.encode() in data


def unquoted(sql):
    return " ".join(sql.replace("`", "").replace('"', "").split())


def identifier(name):
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(value):
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def multipart_fields(content_type, body):
    boundary = re.search(r'boundary="?([^";]+)', content_type)
    if not boundary:
        return {}
    fields = {}
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.group(1).encode()):
        head, _, value = part.partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]*)"', head)
        if name:
            fields[name.group(1).decode()] = value.decode()
    return fields


def main():
    parser = argparse.ArgumentParser(description="a ClickHouse server for tests")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", required=True, help="the folder of the data, made when it is not there")
    parser.add_argument("--user", help="the only user let in; without it everyone is")
    parser.add_argument("--password", default="")
    parser.add_argument("--cluster", help="the name of a cluster that this server is the only node of")
    args = parser.parse_args()
    os.makedirs(args.data, exist_ok=True)
    engine = Engine(args.data, args.cluster)
    server = Server(args.port, engine, args.user, args.password)
    # After the engine has started: it sets handlers of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        server.serve_forever(poll_interval=0.05)
    except (KeyboardInterrupt, SystemExit):
        pass
    server.server_close()
    engine.stop()
    # Threads of connections that are kept alive would hold up an ordinary end.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

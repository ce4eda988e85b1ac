"""The Postgres protocol byte by byte, as drivers that prepare (JDBC) use it, and as nobody should."""

import os
import socket
import struct
import time

from checks import check, expect, expect_in, main, wait_until

INT8, TEXT = 20, 25


class Wire:
    """A socket with messages; answers are (type, body) pairs."""

    def __init__(self, arguments, parameters=None, start=True):
        self.socket = socket.create_connection((arguments.host, arguments.port), timeout=20)
        self.received = b""
        self.key = None
        if start:
            self.startup(parameters or {"user": "root", "database": "dev"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def startup(self, parameters, version=196608):
        body = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items()) + b"\0"
        self.socket.sendall(struct.pack("!ii", len(body) + 8, version) + body)
        answers = self.until_ready()
        self.key = next((struct.unpack("!ii", body) for kind, body in answers if kind == "K"), None)
        return answers

    def send(self, *messages):
        self.socket.sendall(b"".join(messages))

    def receive(self):
        """The next message; None at the end of the stream."""
        while len(self.received) < 5 or len(self.received) < 1 + struct.unpack("!i", self.received[1:5])[0]:
            piece = self.socket.recv(65536)
            if not piece:
                return None
            self.received += piece
        length = struct.unpack("!i", self.received[1:5])[0]
        kind, body = chr(self.received[0]), self.received[5 : 1 + length]
        self.received = self.received[1 + length :]
        return kind, body

    def until_ready(self):
        """Everything up to ReadyForQuery or the end of the connection."""
        answers = []
        while not answers or answers[-1][0] != "Z":
            answer = self.receive()
            if answer is None:
                return answers
            answers.append(answer)
        return answers

    def kinds(self, *messages):
        self.send(*messages)
        return "".join(kind for kind, _ in self.until_ready())


def message(kind, body=b""):
    return kind.encode() + struct.pack("!i", len(body) + 4) + body


def text(value):
    return value.encode() + b"\0"


def query(sql):
    return message("Q", text(sql))


def parse(sql, name="", oids=()):
    return message("P", text(name) + text(sql) + struct.pack(f"!h{len(oids)}i", len(oids), *oids))


def bind(values=(), portal="", statement="", formats=(), results=()):
    body = text(portal) + text(statement) + struct.pack(f"!h{len(formats)}h", len(formats), *formats)
    body += struct.pack("!h", len(values))
    for value in values:
        body += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    return message("B", body + struct.pack(f"!h{len(results)}h", len(results), *results))


def describe(kind, name=""):
    return message("D", kind.encode() + text(name))


def execute(portal="", rows=0):
    return message("E", text(portal) + struct.pack("!i", rows))


def close(kind, name):
    return message("C", kind.encode() + text(name))


SYNC, FLUSH, TERMINATE = message("S"), message("H"), message("X")


def fields(body):
    """The fields of an error or a notice."""
    return {part[:1].decode(): part[1:].decode() for part in body.split(b"\0") if part}


def first_error(answers):
    return next((fields(body) for kind, body in answers if kind == "E"), None)


def values(body):
    count, at, row = struct.unpack("!h", body[:2])[0], 2, []
    for _ in range(count):
        length = struct.unpack("!i", body[at : at + 4])[0]
        row.append(None if length < 0 else body[at + 4 : at + 4 + length])
        at += 4 + max(length, 0)
    return row


def rows(answers):
    return [values(body) for kind, body in answers if kind == "D"]


@check
def encryption_is_declined_and_the_session_goes_on(arguments):
    with Wire(arguments, start=False) as wire:
        for code in (80877103, 80877104):
            wire.socket.sendall(struct.pack("!ii", 8, code))
            expect(wire.socket.recv(1), b"N")
        kinds = "".join(kind for kind, _ in wire.startup({"user": "root", "database": "dev"}))
        expect((kinds[0], kinds[-2:]), ("R", "KZ"))


@check
def a_newer_protocol_is_negotiated(arguments):
    with Wire(arguments, start=False) as wire:
        answers = wire.startup({"user": "root", "database": "dev", "_pq_.extra": "1"}, version=196610)
        expect(answers[0][0], "v")
        expect(struct.unpack("!ii", answers[0][1][:8]), (196608, 1))
        expect(answers[-1], ("Z", b"I"))


@check
def a_prepared_statement_in_parts(arguments):
    with Wire(arguments) as wire:
        sql = "SELECT value, value * $1 AS n, $2 AS t FROM generate_series(1, 10) g(value) WHERE value > $1 ORDER BY value"
        wire.send(parse(sql, "s", [INT8, TEXT]), describe("S", "s"), SYNC)
        answers = wire.until_ready()
        expect("".join(kind for kind, _ in answers), "1tTZ")
        expect(struct.unpack("!hii", answers[1][1]), (2, INT8, TEXT))
        for wanted in (b"7", b"9"):
            wire.send(bind([wanted, b"x"], statement="s", results=[0, 1, 0]), describe("P"), execute(), SYNC)
            answers = wire.until_ready()
            number = int(wanted)
            expect(
                rows(answers),
                [[str(n).encode(), struct.pack("!q", n * number), b"x"] for n in range(number + 1, 11)],
            )
            expect(answers[-2], ("C", b"SELECT %d\0" % (10 - number)))
        wire.send(bind([struct.pack("!q", 9), None], statement="s", formats=[1, 0]), execute(), SYNC)
        expect(rows(wire.until_ready()), [[b"10", b"90", None]])
        expect(wire.kinds(close("S", "s"), close("S", "never"), SYNC), "33Z")
        wire.send(bind([b"1", b"x"], statement="s"), SYNC)
        expect(first_error(wire.until_ready())["C"], "26000")


def described(wire, sql, oids=()):
    """OIDs of parameters and columns that a Describe of the statement tells."""
    wire.send(parse(sql, "described", oids), describe("S", "described"), close("S", "described"), message("S"))
    answers = wire.until_ready()
    error = [body for kind, body in answers if kind == "E"]
    if error:
        raise AssertionError(f"{sql}: {error[0]!r}")
    body = next(body for kind, body in answers if kind == "t")
    parameters = list(struct.unpack(f"!{struct.unpack('!h', body[:2])[0]}i", body[2:]))
    columns = []
    for kind, body in answers:
        if kind == "T":
            rest = body[2:]
            for _ in range(struct.unpack("!h", body[:2])[0]):
                end = rest.index(b"\0") + 1
                columns.append(struct.unpack("!i", rest[end + 6 : end + 10])[0])
                rest = rest[end + 18 :]
    return parameters, columns


@check
def statements_are_described_with_the_types_of_postgresql(arguments):
    jsonb, uuid, varchar, numeric, int4, timestamptz, int8s, uuids = 3802, 2950, 1043, 1700, 23, 1184, 1016, 2951
    with Wire(arguments) as wire:
        wire.send(
            query(
                "CREATE TABLE described (id BIGINT PRIMARY KEY, data JSONB, tag UUID, code VARCHAR(5), price NUMERIC(8,2), tags UUID[]);"
                "CREATE MATERIALIZED VIEW described_view AS SELECT tag AS t, data, code, tags, id FROM described WHERE id > 0"
            )
        )
        wire.until_ready()
        for sql, parameters, columns in [
            ("SELECT $1::bigint", [INT8], [INT8]),
            ("SELECT $1", [TEXT], [TEXT]),
            ("SELECT $1::uuid AS a, $2::jsonb AS b", [uuid, jsonb], [uuid, jsonb]),
            ("SELECT id FROM described WHERE tag = $1 AND data = $2 AND code = $3", [uuid, jsonb, varchar], [INT8]),
            ("SELECT * FROM described_view", [], [uuid, jsonb, varchar, uuids, INT8]),
            ("SELECT d.t, data ->> 'x' AS x FROM described_view d WHERE d.id = ANY($1)", [int8s], [uuid, TEXT]),
            ("SELECT id FROM described LIMIT $1", [INT8], [INT8]),
            ("SELECT coalesce(price, $1) AS p FROM described", [numeric], [numeric]),
            ("INSERT INTO described (id, data, tag) VALUES ($1, $2, $3)", [INT8, jsonb, uuid], []),
            ("UPDATE described SET price = $1 WHERE id = $2", [numeric, INT8], []),
        ]:
            expect(described(wire, sql), (parameters, columns), sql)
        expect(described(wire, "SELECT $1::bigint + 1 AS n", (int4,))[0], [int4], "the client's type of a parameter")
        expect(described(wire, "SELECT now() - $1::interval AS t")[1], [timestamptz])


@check
def a_portal_is_read_in_pieces(arguments):
    with Wire(arguments) as wire:
        expect(wire.kinds(query("BEGIN")), "CZ")
        wire.send(parse("SELECT value FROM generate_series(1, 5) g(value)"), bind(portal="c"), execute("c", 2), SYNC)
        answers = wire.until_ready()
        expect("".join(kind for kind, _ in answers), "12DDsZ")
        expect(wire.kinds(execute("c", 2), SYNC), "DDsZ")
        # Another query in between does not disturb it.
        expect(wire.kinds(query("SELECT 1")), "TDCZ")
        wire.send(execute("c", 2), execute("c", 2), SYNC)
        answers = wire.until_ready()
        expect("".join(kind for kind, _ in answers), "DCCZ")
        expect([body for kind, body in answers if kind == "C"], [b"SELECT 1\0", b"SELECT 0\0"])
        wire.kinds(query("COMMIT"))
        wire.send(execute("c", 2), SYNC)
        expect(first_error(wire.until_ready())["C"], "34000")


@check
def after_an_error_everything_up_to_sync_is_skipped(arguments):
    with Wire(arguments) as wire:
        select = parse("SELECT 1") + bind() + execute()
        wire.send(select, parse("SELEC 1"), bind(), execute(), FLUSH, query("SELECT 2"), SYNC, select, SYNC)
        expect("".join(kind for kind, _ in wire.until_ready()), "12DCEZ")
        expect("".join(kind for kind, _ in wire.until_ready()), "12DCZ")
        # In simple queries too, statements behind the error do not run; the next query does.
        expect(wire.kinds(query("SELECT 1; SELEC; SELECT 2"))[-2:], "EZ")
        expect(wire.kinds(query("SELECT 1; SELECT * FROM no_such_table; SELECT 2")), "TDCEZ")
        expect(wire.kinds(query("")), "IZ")
        expect(wire.kinds(parse(""), bind(), describe("P"), execute(), SYNC), "12nIZ")


@check
def flush_sends_what_is_there(arguments):
    with Wire(arguments) as wire:
        wire.send(parse("SELECT 1"), FLUSH)
        expect(wire.receive()[0], "1")
        wire.send(bind(), FLUSH)
        expect(wire.receive()[0], "2")
        expect(wire.kinds(execute(), SYNC), "DCZ")


@check
def pipelined_queries_without_reading_do_not_block_the_server(arguments):
    with Wire(arguments) as wire:
        one = parse("SELECT value, 'some text to fill the buffers' FROM generate_series(1, 1000) g(value)") + bind() + execute() + SYNC
        wire.send(one * 50)
        for _ in range(50):
            expect(len(rows(wire.until_ready())), 1000)


@check
def copy_in_the_extended_protocol(arguments):
    with Wire(arguments) as wire:
        expect(wire.kinds(query("CREATE TABLE wire_copy (id BIGINT, t TEXT)")), "CZ")
        copy = parse("COPY wire_copy FROM STDIN") + bind() + execute() + SYNC
        wire.send(copy)
        expect([wire.receive()[0] for _ in range(3)], ["1", "2", "G"])
        expect(wire.kinds(message("d", b"1\ta\n2"), message("d", b"\tb\n"), message("c"), SYNC), "CZ")
        wire.send(copy)
        expect([wire.receive()[0] for _ in range(3)], ["1", "2", "G"])
        expect(wire.kinds(message("d", b"3\tc\n"), message("f", text("no")), SYNC), "EZ")
        wire.kinds(query("FLUSH"))
        wire.send(query("SELECT count(*) FROM wire_copy"))
        expect(rows(wire.until_ready()), [[b"2"]])
        # Leftovers of a COPY that failed at once are ignored.
        expect(wire.kinds(query("COPY no_such_table FROM STDIN"), message("d", b"1\n"), message("c")), "EZ")
        expect(wire.kinds(query("SELECT 1")), "TDCZ")


@check
def broken_messages_are_answered_and_end_at_most_their_connection(arguments):
    with Wire(arguments) as wire:
        # The body is wrong, the frame is not: an error, then all goes on.
        whole = bind([b"1"], statement="s")[5:]
        for length in range(0, len(whole), 3):
            wire.send(message("B", whole[:length]), SYNC)
            expect(first_error(wire.until_ready())["C"] in ("08P01", "26000"), True, f"cut at {length}")
        wire.send(message("Q", b"SELECT '\xff'\0"))
        expect(first_error(wire.until_ready())["C"], "22021")
        expect(wire.kinds(query("SELECT 1")), "TDCZ")
        wire.send(parse("SELECT $1::bigint"), bind([]), SYNC)
        expect(first_error(wire.until_ready())["C"], "08P01")
        wire.send(parse("SELECT $1::bigint"), bind([b"\0\0"], formats=[1]), SYNC)
        expect(first_error(wire.until_ready())["C"], "22P03", "code of a short binary value")
    for garbage in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        struct.pack("!ii", 3, 196608),
        struct.pack("!ii", 2**31 - 1, 196608),
        struct.pack("!ii", 9, 0x00020000) + b"\0",
        struct.pack("!ii", 12, 196608) + b"user",
        os.urandom(300),
    ):
        with Wire(arguments, start=False) as wire:
            wire.socket.sendall(garbage)
            wire.socket.shutdown(socket.SHUT_WR)
            wire.until_ready()
    for garbage in (b"?\0\0\0\4", b"Q\0\0\0\1", b"Q\x7f\xff\xff\xff", message("p", b"secret\0")):
        with Wire(arguments) as wire:
            wire.send(garbage)
            answers = wire.until_ready()
            expect(first_error(answers)["V"], "FATAL", f"answer to {garbage!r}")
            expect(wire.receive(), None, "the connection after it")
    with Wire(arguments) as wire:
        expect(wire.kinds(query("SELECT 1")), "TDCZ")


@check
def long_statements_have_a_limit(arguments):
    with Wire(arguments) as wire:
        long = "SELECT length('" + "x" * 2_000_000 + "')"
        wire.send(query(long))
        expect(rows(wire.until_ready()), [[b"2000000"]])
        wire.send(b"Q" + struct.pack("!i", 65 * 1024 * 1024))
        expect(first_error(wire.until_ready())["C"], "54000")


@check
def a_cancel_request_needs_the_secret(arguments):
    with Wire(arguments) as wire:
        process, secret = wire.key

        def cancel(process, secret):
            with Wire(arguments, start=False) as other:
                other.socket.sendall(struct.pack("!iiii", 16, 80877102, process, secret))
                expect(other.socket.recv(1), b"", "the answer to a cancel request")

        wire.send(query("SELECT sum(value % 7) FROM generate_series(1, 400000000000) g(value)"))
        time.sleep(0.3)
        cancel(process, secret ^ 1)
        cancel(process ^ 1, secret)
        wire.socket.settimeout(1)
        try:
            answer = wire.receive()
            raise AssertionError(f"a wrong secret stopped the query: {answer}")
        except TimeoutError:
            pass
        wire.socket.settimeout(20)
        cancel(process, secret)
        answers = wire.until_ready()
        expect(first_error(answers)["C"], "57014")
        expect(answers[-1], ("Z", b"I"))


@check
def a_half_closed_connection_harms_nothing(arguments):
    with Wire(arguments) as wire:
        wire.send(query("SELECT 1"))
        wire.socket.shutdown(socket.SHUT_WR)
        # Either the answer or the end, and the server goes on.
        wire.until_ready()
        expect(wire.receive(), None)
    with Wire(arguments) as wire:
        wire.send(b"Q\0\0")
        wire.socket.shutdown(socket.SHUT_WR)
        expect(wire.receive(), None)


@check
def connections_are_limited_and_given_back(arguments):
    held, refusal = [], None
    try:
        for _ in range(300):
            wire = Wire(arguments, start=False)
            held.append(wire)
            try:
                answers = wire.startup({"user": "root", "database": "dev"})
            except ConnectionError:
                answers = []
            refusal = first_error(answers)
            if refusal or not answers:
                break
        expect(refusal and refusal["C"], "53300", "the answer beyond the limit")
        expect_in("too many clients", refusal["M"])
        # A cancel request must get through even now.
        process, secret = held[0].key
        held[0].send(query("SELECT sum(value % 7) FROM generate_series(1, 400000000000) g(value)"))
        time.sleep(0.3)
        with Wire(arguments, start=False) as other:
            other.socket.sendall(struct.pack("!iiii", 16, 80877102, process, secret))
        expect(first_error(held[0].until_ready())["C"], "57014")
    finally:
        for wire in held:
            wire.socket.close()

    def connects():
        with Wire(arguments, start=False) as wire:
            return first_error(wire.startup({"user": "root", "database": "dev"})) is None

    wait_until(connects, "a free connection")


if __name__ == "__main__":
    main()

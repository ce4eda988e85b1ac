"""The poison corpus: rows that senders get wrong, for a table (n, f, d, b, t, ts, day, u, j, a).

Each case is the bytes of one row, without its line end. Some turn out to be rows after all; the check counts them.
"""

GOOD = b'{"n":1,"f":1.5,"d":2.50,"b":true,"t":"x","ts":"2024-01-01T00:00:00Z","day":"2024-01-01","j":{"k":[1]},"a":[1]}'

# Values that their column can't hold, as JSON and as they would stand in CSV.
BAD_VALUES = {
    "n": [
        "NaN", "1e400", "9223372036854775808", "-9223372036854775809", "1.5", '"abc"', "true", "[]", "{}", "null", "-1",
        "1e30", "0x10", "1_000", '""', '" 7 "', '"1,000"', '"١٢"', "Infinity", '"\\u0000"', '"1\\n2"',
    ],
    "f": ['"abc"', "1e400", "-1e400", "[]", "true", '""', "NaN", "-Infinity", '"1,5"', '"--1"', "{}", "1.7976931348623159e308"],
    "d": [
        "99999999999999999.99", "-1e30", '"abc"', "NaN", '"NaN"', "[1]", "true", '"1,50"', '"1.5.5"', "1e400", '"$5"', "{}",
    ],
    "b": ['"maybe"', "2", "-1", "[]", "{}", '""', "1.0", '"yes please"'],
    "ts": [
        '"never"', '"2024-13-01T00:00:00Z"', '"2024-02-30T00:00:00Z"', '"2024-01-01T25:00:00Z"', '"2024-01-01T00:61:00Z"',
        "1e300", "-1e300", "99999999999999999999", "true", "[]", "{}", '""', '"0000-00-00 00:00:00"', '"2024-01-01T00:00:00+99:00"',
        '"99999-01-01T00:00:00Z"', '"01/02/2024"', '"2024-01-01T00:00:00Zjunk"',
    ],
    "day": ['"2024-13-01"', '"2024-02-30"', '"soon"', "true", "[]", '"2024-1"', "1e300", '"20240101x"', '""'],
    "u": ['"x"', "1", "true", '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1"', '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1g"', "[]"],
    "a": ['"x"', "1", "true", "[[1]]", '["x"]', "[1.5]", "[9223372036854775808]", "{}", "[1,]"],
}

NOT_OBJECTS = [
    b"null", b"1", b'"x"', b"true", b"[]", b"[1]", b"[[{}]]", b"x", b"{", b"}", b"{]", b"[}", b"{{}}", b"{}", b"{}{}", b"{},", b",{}",
    b"{'n': 1}", b'{n: 1}', b'{"n": 1,}', b'{"n": 1,,"t": "x"}', b'{"n" 1}', b'{"n": 1 "t": "x"}', b'{"n": 01}', b'{"n": +1}', b'{"n": 1.}',
    b'{"n": .5}', b'{"n": 1e}', b'{"n": --1}', b'{"n": 1}x', b'{"n": 1} // no', b'/* no */ {"n": 1}', b'{"n": undefined}', b'{"n": nul}',
    b'{"n": tru}', b'{"n": 1, "t": "open}', b'{"n": 1, "t": "tab\there"}', b'{"n": 1, "t": "\x00"}', b'{"n": 1, "t": "\x1f"}',
    b'{"n": 1, "t": "\\x"}', b'{"n": 1, "t": "\\u12"}', b'{"n": 1, "t": "\\ud800"}', b'{"n": 1, "t": "\\udc00x"}',
    b'{"n": 1, "t": "\\ud800\\ud800"}', b'{"n": 1, "t": "\\u0000"}', b'{"n": 1, "t": "\xff"}', b'{"n": 1, "t": "\xc0\x80"}',
    b'{"n": 1, "t": "\xed\xa0\x80"}', b'{"n": 1, "t": "\xf5\x80\x80\x80"}', b'{"n": 1, "t": "\xe2\x82"}', b'{"\xff": 1}',
    b'{"n": 1, "\xe2\x82": 1}', b'\xff\xfe{\x00"\x00n\x00"\x00:\x001\x00}\x00', b"\x00", b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    b"\x28\xb5\x2f\xfd\x04\x00", b"PAR1", b"<row><n>1</n></row>", b"n=1&t=x", b"GET / HTTP/1.1", b'{"n": 1, "unknown": 2}', b'{"N": 1}',
    b'{"": 1}', b'{"n": 1, "n.t": 2}', b'{"n": {"n": 1}}', b'{"t": "no n"}', b'{"n": null}', b'{"n": 1, "n": "x"}',
    b'{"n": 1, "j": {"a": 1,}}', b'{"n": 1, "j": [1, 2}', b'{"n": 1, "j": nope}', b'{"n": 1, "j": "\\ud800"}',
    b"[" * 100_000, b'{"j":' * 100_000, b'{"n": 1, "j": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"n": 1, "j": ' + b'{"k":' * 5_000 + b"1" + b"}" * 5_000 + b"}", b'{"n": ' + b"9" * 100_000 + b"}", b'{"n": -' + b"9" * 400 + b".5}",
    b'{"' + b"k" * 100_000 + b'": 1}', b'{"n": 1, "t": "' + b"x" * (10 * 1024 * 1024) + b'"}', b'{"n": 1e-400000000000}',
]

NDJSON_CASES = [
    *(b'{"n":1,"' + column.encode() + b'":' + value.encode() + b"}" if column != "n" else b'{"n":' + value.encode() + b"}"
      for column, values in BAD_VALUES.items() for value in values),
    *NOT_OBJECTS,
    # Cut off anywhere, as when a sender dies.
    *(GOOD[:length] for length in range(1, len(GOOD))),
]

# n,f,d,b,t,ts,day,u,j,a
CSV_CASES = [
    *(b"1" + b"," * index + value.strip('"').encode() + b"," * (9 - index) if index else value.strip('"').encode() + b"," * 9
      for index, column in enumerate(["n", "f", "d", "b", "t", "ts", "day", "u", "j", "a"])
      for value in BAD_VALUES.get(column, [])
      if "," not in value and "\\" not in value and value not in ("{}", "[]", "null", '""', "true", '" 7 "', "1")),
    b"", b"1", b"1,2", b"1,,,,,,,,,,", b",,,,,,,,,", b'1,"open', b'1,,,,"a"b,,,,,', b'"1', b"1;2;3", b"1\t2\t3",
    b"1,,,,\xff,,,,,", b"1,,,,\xed\xa0\x80,,,,,", b"1,,,,a\x00b,,,,,", b"\xef\xbb\xbfx,,,,,,,,,", b"x" * 100_000 + b",,,,,,,,,",
    b"1,,,," + b"x" * (10 * 1024 * 1024) + b",,,,,", b"\x1f\x8b\x08\x00", b"<row/>", b'{"n": 1}', b"-1,,,,,,,,,",
    b"1,,,,,,,,{," , b"1,,,,,,,,[1,", b"1,,,,,,,,nope,",
]

"""Jepsen's history.edn: the forms in which it comes, and what is said of one that is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.checking.edn import read_forms
from quorate.checking.history import HistoryError, JsonValue, Operation
from quorate.checking.jepsen import read_jepsen

EVENTS = """\
{:process :nemesis, :type :info, :f :start, :value nil, :time 5, :index 0}
{:process 0, :type :invoke, :f :write, :value 3, :time 90, :index 1}
#jepsen.history.Op{:index 2, :time 80, :type :invoke, :process 1, :f :cas, :value [3 4]}
{:process 0, :type :ok, :f :write, :value 3, :time 100, :index 3} ; done
#_ {:process 9}
{:type :invoke, :f :read, :value nil, :process 0}
{:type :info, :f :cas, :value [3 4], :process 1, :error :timeout, :exception {:via [{:at (1 2 #{3})}]}}
{:type :ok, :f :read, :value 3, :process 0}
{:type :invoke, :f :write, :value "a\\u00e4\\n\\"", :process 5}
{:type :fail, :f :write, :value "a\\u00e4\\n\\"", :process 5, :error [:net "x"]}
"""
OPERATIONS = [
    Operation(0, "write", None, 3, 3, 1, 3, 2),
    Operation(1, "cas", None, [3, 4], None, 2, None, 3),
    Operation(0, "read", None, None, 3, 4, 6, 6),
]


@pytest.mark.parametrize("text", [EVENTS, f"[{EVENTS}]", f"({EVENTS})"])
def test_a_history_in_all_its_forms(text: str) -> None:
    assert read_jepsen(text) == OPERATIONS


def test_independent_keys() -> None:
    text = """\
[{:process 0, :type :invoke, :f :read, :value [7 nil]}
 {:process 1, :type :invoke, :f :cas, :value ["k" [1 2]]}
 {:process 0, :type :ok, :f :read, :value [7 1]}
 {:process 1, :type :info, :f :cas, :value nil}]"""
    assert read_jepsen(text, independent=True) == [
        Operation(0, "read", "7", None, 1, 0, 2, 1),
        Operation(1, "cas", "k", [1, 2], None, 1, None, 2),
    ]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("nil true false", [None, True, False]),
        ("1 -2 +3 4N 1.5 -2.5e3 1M", [1, -2, 3, 4, 1.5, -2500.0, 1]),
        (':key :a/b symbol "text" \\a \\newline \\space', [":key", ":a/b", "symbol", "text", "a", "\n", " "]),
        ('"two\nlines" "\\ud83d\\ude00"', ["two\nlines", "\U0001f600"]),
        ("{:a 1, 2 [3 (4)]} {}", [{":a": 1, "#2": [3, [4]]}, {}]),
        ('#{2 1} #inst "2026-01-01" #_ #_ 5 6 {#_ :a :b 1}', [[1, 2], "2026-01-01", {":b": 1}]),
        ("[1 #_ 2 3]", [1, 3]),
        ("\\u00e9 \\é \\u \\tab \\(", ["é", "é", "u", "\t", "("]),
        ("1.5M 1.50M 2.00M 1e3M -0.0M", [1.5, 1.5, 2, 1000, 0]),
        ("0.1M 0.10M 0.1", ["0.1M", "0.1M", 0.1]),
        ("12345678901234567890.123M", ["12345678901234567890.123M"]),
        ("##Inf ##-Inf ##NaN", ["##Inf", "##-Inf", "##NaN"]),
        ("^:m [1] ^{:line 3} {:a ^String b} #^:m 2 #_ ^:m 3 4", [[1], {":a": "b"}, 2, 4]),
        ("#:a{:b 1, :_/c 2, :d/e 3, f 4} #:a.b {:c 1}", [{":a/b": 1, ":c": 2, ":d/e": 3, "f": 4}, {":a.b/c": 1}]),
        ('{"1" 2 1 3}', [{"1": 2, "#1": 3}]),
        ("{{:b 1 :a 2} 3} #{{:b 1 :a 2} 3}", [{'#{":a": 2, ":b": 1}': 3}, [3, {":b": 1, ":a": 2}]]),
    ],
)
def test_edn_becomes_json(text: str, values: list[JsonValue]) -> None:
    assert [form.value for form in read_forms(text)] == values


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("#_ " * 5000, 1, "the text ends after #_"),
        ("#_ #_ [" * 5000, 1, "nested more than 100 deep"),
        ("", 1, "no events of clients"),
        ("{:process :nemesis, :type :info}", 1, "no events of clients"),
        ("\n\n5", 3, "an event is a map, not 5"),
        ("\n{:process 0, :f :read}", 2, ":type is missing"),
        ("{:type :invoke, :f :read}", 1, ":process is missing"),
        ("{:type :invoke, :process 0}", 1, ":f is missing"),
        ("{:type :invoke, :process 1.5, :f :read}", 1, ":process is 1.5, not a whole number, a string or a keyword"),
        ("{:type :begin, :process 0, :f :read}", 1, ':type is ":begin", not one of :invoke, :ok'),
        ("{:type :invoke, :process 0, :f 7}", 1, ":f is 7, not a keyword"),
        ("\n{:type :ok, :process 0, :f :read}", 2, "ok of process 0, which invoked nothing"),
        ("\n{:type :invoke", 2, "{ is never closed"),
        ("[{:type\n:invoke]", 2, "] closes the { of line 1"),
        ("\n[", 2, r"\[ is never closed"),
        ("\n}", 2, "} is out of place"),
        ("{:a}", 1, "a map without a value to its last key"),
        ("\n{:a 1 :a 2}", 2, "a map has the key :a twice"),
        ("#:a 5", 1, "#:a is not followed by a map"),
        ("##Foo", 1, "##Foo is out of place"),
        ("^:m", 1, r"the text ends after \^"),
        ("\\ud83d", 1, "half of a surrogate pair"),
        ("1e99999999999999999999M", 1, "out of range"),
        ("{:a #tag}", 1, "} is out of place"),
        ("\n#_", 2, "the text ends after #_"),
        ('"never closed', 1, "not EDN"),
        ('"\\q"', 1, "unknown escape"),
        ('"\\ud83d"', 1, "half of a surrogate pair"),
        ("1e999", 1, "out of range"),
        ("1" * 5000, 1, "more than 1000 digits"),
        ("{:a " + "[" * 5000, 1, "nested more than 100 deep"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(HistoryError, match=reason) as caught:
        read_jepsen(text)
    assert caught.value.line == line


def test_a_client_may_be_named_by_a_string() -> None:
    """It must not be taken for the nemesis, whose events are skipped."""
    text = '{:type :invoke, :f :read, :process "c1"} {:type :ok, :f :read, :value 2, :process "c1"}'
    assert read_jepsen(text) == [Operation("c1", "read", None, None, 2, 0, 1, 1)]


def test_a_value_that_is_no_pair() -> None:
    with pytest.raises(HistoryError, match="line 1: :value is 5, not a pair of key and value"):
        read_jepsen("{:type :invoke, :process 0, :f :write, :value 5}", independent=True)


PIECES = st.sampled_from(
    [
        *(
            "{",
            "}",
            "[",
            "]",
            "(",
            ")",
            "#{",
            "#_",
            "#a",
            "^",
            "##NaN",
            "#:n",
            ":type",
            ":invoke",
            ":ok",
            ":process",
            ":f",
            ":value",
            ":key",
        ),
        *("0", "1", "nil", "true", ":read", '"x"', '"', "\\", "\\a", ";", "\n", ",", "1e9", "-", "#", "\ud800"),
    ]
)


@settings(deadline=None)  # a busy machine is no defect
@given(st.lists(PIECES | st.text(max_size=3), max_size=30), st.booleans())
def test_any_text_is_read_or_refused(pieces: list[str], independent: bool) -> None:
    try:
        read_jepsen(" ".join(pieces), independent)
    except HistoryError as error:
        assert error.reason


@settings(deadline=None)  # a busy machine is no defect
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                ":type": st.sampled_from([":invoke", ":ok", ":info", ":fail", "5"]),
                ":process": st.sampled_from(["0", "1", ":nemesis", "nil", "true"]),
                ":f": st.sampled_from([":read", ":write", "nil", "7"]),
                ":value": st.sampled_from(["nil", "1", "[1 2]", "[1 [2 3]]", "[[] 2]", "{}", '"ab"']),
                ":key": st.sampled_from(["nil", "1", "[1]", "true"]),
            },
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_any_events_are_read_or_refused(events: list[dict[str, str]], independent: bool) -> None:
    text = "\n".join("{" + " ".join(f"{name} {value}" for name, value in event.items()) + "}" for event in events)
    try:
        read_jepsen(text, independent)
    except HistoryError as error:
        assert error.reason

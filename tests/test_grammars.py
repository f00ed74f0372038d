"""The example grammars: what they state is checked against Python's own arithmetic, calendar and interpreter."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from variegate.templates import Grammar

FOLDER = Path(__file__).parents[1] / "examples" / "grammars"
SAMPLES = 10_000


def samples(name: str) -> list[tuple[str, dict[str, str]]]:
    """Texts of a grammar, and what each tag of a text holds, a line each where it comes again."""
    drawn = Grammar.from_file(FOLDER / f"{name}.grammar").sample(SAMPLES, seed=8)
    assert drawn.spans is not None
    texts = [text.encode() for text in drawn.texts]
    parts: list[dict[str, str]] = [{} for _ in texts]
    for row, start, end, tag in drawn.spans.to_list():
        held = texts[row][start:end].decode()
        parts[row][tag] = f"{parts[row][tag]}\n{held}" if tag in parts[row] else held
    return list(zip(drawn.texts, parts, strict=True))


def by_pattern(patterns: dict[str, Callable[..., object]], text: str) -> tuple[str, str]:
    """The pattern that a text follows, and what its function makes of the groups."""
    for pattern, answer in patterns.items():
        found = re.search(pattern, text)
        if found:
            return pattern, str(answer(*(int(g) if re.fullmatch(r"-?\d+", g) else g for g in found.groups())))
    raise AssertionError(text)


def check(name: str, patterns: dict[str, Callable[..., object]]) -> None:
    """Every answer is that of the function whose pattern the question follows, and every pattern comes up."""
    seen = set()
    for text, part in samples(name):
        pattern, expected = by_pattern(patterns, part["question"])
        assert part["answer"] == expected, text
        seen.add(pattern)
    assert seen == patterns.keys()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.grammar")), ids=lambda path: path.stem)
def test_texts_are_read_back(path):
    g = Grammar.from_file(path)
    drawn = g.sample(100, seed=12)
    for text, index in zip(drawn.texts, drawn.rows["_index"].tolist(), strict=True):
        found = g.index_of(text)
        assert found <= index
        assert g.nth(found).text == text


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.grammar")), ids=lambda path: path.stem)
def test_texts_are_clean(path):
    g = Grammar.from_file(path)
    assert g.count() > 1_000_000
    assert len(path.read_text().splitlines()) > 15
    for text in g.sample(SAMPLES, seed=9).texts:
        assert not re.search(
            r"[{}\\]|</|\S  \S|\w [.,:?]|\b[Aa] [aeio]|(?<![\d.,] )\b1 (coins|metres|weeks)\b", text
        ), text


def test_arithmetic():
    number = r"(\d+)"
    check(
        "arithmetic",
        {
            rf"{number} plus {number}": lambda a, b: a + b,
            rf"{number} minus {number}": lambda a, b: a - b,
            rf"{number} times {number}": lambda a, b: a * b,
            rf"Divide {number} by {number}": lambda a, b: f"{a // b} remainder {a % b}",
            rf"greater, {number} or {number}": max,
            rf"has {number} .* gives {number} of them": lambda a, b: a - b,
            rf"has {number} .* keeps {number} ": lambda a, b: a * b,
            rf"shares {number} .* among {number} friends": lambda a, b: a // b,
            rf"saved {number} .* gets {number} .* after {number} weeks": lambda a, b, c: a + b * c,
        },
    )


def test_arithmetic_has_enough_to_draw_without_repeats():
    g = Grammar.from_file(FOLDER / "arithmetic.grammar")
    assert g.count() > 123_456_789
    assert g.index_of(g.nth(123_456_789)) == 123_456_789
    drawn = [g.sample(5_000, seed=3, replace=False, shard=(r, 4)) for r in range(4)]
    assert len({index for part in drawn for index in part.rows["_index"].tolist()}) == 20_000
    assert "a" in drawn[0].rows


def side(text: str, unknown: str, value: int) -> int:
    """The value of one side of an equation."""
    text = re.sub(rf"(\d){unknown}", rf"\1 * {unknown}", text)
    text = re.sub(r"(\d)\(", r"\1 * (", text)
    assert re.fullmatch(rf"[\d+\-*() {unknown}]+", text)
    return int(eval(text, {"__builtins__": {}}, {unknown: value}))


def test_algebra():
    for text, part in samples("algebra"):
        unknown = re.search(r"(?:for|Find|value of) (\w)", text)[1]
        solution = int(part["answer"])
        if "m" in part["equation"]:
            total, difference = map(int, re.findall(r"= (\d+)", part["equation"]))
            assert (2 * solution, solution > total - solution) == (total + difference, True), text
        else:
            left, right = part["equation"].split(" = ")
            assert side(left, unknown, solution) == side(right, unknown, solution), text
            assert side(left, unknown, solution + 1) != side(right, unknown, solution + 1), text
        left, right = part["check"].split(" = ")
        assert side(left, unknown, 0) == side(right, unknown, 0), text


def test_steps_of_algebra_keep_the_solution():
    g = Grammar.from_file(FOLDER / "algebra.grammar")
    for text in g.sample(SAMPLES, seed=8).texts:
        unknown = re.search(r"(?:for|Find|value of) (\w)", text)[1]
        solution = int(re.search(rf"(?:So|solution is) {unknown} = (\d+)\.", text)[1])
        steps = re.findall(r": (\d*\w.* = .*)\.$", text, re.MULTILINE)
        assert steps, text
        for step in steps:
            left, right = step.split(" = ")
            whole = re.fullmatch(r"(\d+) / (\d+)", right)
            value = Decimal(whole[1]) / Decimal(whole[2]) if whole else side(right, unknown, solution)
            assert side(left, unknown, solution) == value, text


def truth(formula: str, values: dict[str, bool]) -> bool:
    """A formula's value: parts are names or in brackets, with one connective between two."""
    formula = formula.strip()
    depth = 0
    for at, sign in enumerate(formula):
        depth += (sign == "(") - (sign == ")")
        for connective, result in (
            (" and ", lambda a, b: a and b),
            (" or ", lambda a, b: a or b),
            (" implies ", lambda a, b: not a or b),
            (" if and only if ", lambda a, b: a is b),
        ):
            if depth == 0 and formula.startswith(connective, at):
                return result(truth(formula[:at], values), truth(formula[at + len(connective) :], values))
    if formula.startswith("("):
        return truth(formula[1:-1], values)
    return not truth(formula[4:], values) if formula.startswith("not ") else values[formula]


def test_logic():
    kinds = set()
    for text, part in samples("logic"):
        answer, question = part["answer"], part["question"]
        if "formula" in part:
            values = {name: value == "true" for name, value in re.findall(r"(\w) = (\w+)", part["values"])}
            assert answer == ("yes" if truth(part["formula"], values) else "no"), text
            kinds.add(answer)
        elif question.startswith("If"):
            cause, effect, given, asked = re.fullmatch(
                r"If (.*), then (.*)\. (.*)\. Does it follow that (.*)\?", question
            ).groups()
            denied = "it is not the case that "
            given = given[0].lower() + given[1:]
            right = [(cause, effect), (denied + effect, denied + cause)]
            wrong = [(effect, cause), (denied + cause, denied + effect)]
            assert (given, asked) in right + wrong
            valid = (given, asked) in right
            assert answer == ("Yes" if valid else "No"), text
            assert ("valid argument" if valid else "fallacy") in text
            kinds.add(re.search(r"known as (.*)\.", text)[1])
        else:
            a, link, b = re.fullmatch(r'What is the negation of "(.*) (and|or) (.*)"\?', question).groups()
            a, b = a.replace(" is ", " is not "), b.replace(" is ", " is not ")
            assert answer == f"{a} {'or' if link == 'and' else 'and'} {b}", text
            kinds.add(link)
    assert len(kinds) == 8


def day(text: str) -> datetime.date:
    return datetime.datetime.strptime(text, "%d %B %Y").date()


def said(date: datetime.date) -> str:
    return f"{date.day} {date:%B} {date.year}"


def test_dates():
    date = r"(\d+ [A-Z]\w+ \d{4})"

    def age(born: str, now: str) -> int:
        b, t = day(born), day(now)
        return t.year - b.year - ((t.month, t.day) < (b.month, b.day))

    def last_day(month: str, year: int) -> str:
        first = day(f"1 {month} {year}")
        return said((first + datetime.timedelta(31)).replace(day=1) - datetime.timedelta(1))

    def leap(year: int) -> str:
        try:
            return "Yes" if datetime.date(year, 2, 29) else ""
        except ValueError:
            return "No"

    def weekday(d: str, name: str, n: int) -> str:
        assert f"{day(d):%A}" == name
        return f"{day(d) + datetime.timedelta(n):%A}"

    def meeting(name: str, d: str, n: int) -> str:
        assert f"{day(d):%A}" == name
        return said(day(d) + datetime.timedelta(7 * (n - 1)))

    check(
        "dates",
        {
            rf"the date (\d+) days after {date}": lambda n, d: said(day(d) + datetime.timedelta(n)),
            rf"date was (\d+) days before {date}": lambda n, d: said(day(d) - datetime.timedelta(n)),
            rf"{date} is a (\w+)\. Which weekday is (\d+) days later": weekday,
            rf"from {date} to {date}": lambda d, e: (day(e) - day(d)).days,
            r"29 days in (\d+)": leap,
            rf"born on {date}\. How old is \w+ on {date}": age,
            rf"first time on (\w+), {date}\. When does it meet for the (\d+)\w\w time": meeting,
            r"last day of (\w+) (\d+)": last_day,
        },
    )


def test_python_exercises_pass_their_tests():
    functions = set()
    for text, part in samples("python"):
        spoken = re.search(r"`(\w+)\(", part["task"])[1]
        scope: dict[str, object] = {}
        try:
            exec(part["solution"] + "\n" + part["tests"], scope)
        except Exception as error:
            raise AssertionError(text) from error
        assert spoken in scope
        assert part["tests"].count(spoken) >= 2
        with pytest.raises((AssertionError, TypeError)):
            exec(part["solution"] + f"\n{spoken} = lambda *given: None\n" + part["tests"], {})
        functions.add(spoken)
    assert len(functions) == 30


def test_science():
    number = r"([\d.,-]+)"

    def exact(text: object) -> Decimal:
        return Decimal(str(text).replace(",", "").rstrip("."))

    def plain(value: Decimal) -> str:
        return f"{value.normalize():f}"

    check(
        "science",
        {
            rf"covers {number} kilometres in {number} hours": lambda s, t: f"{plain(exact(s) / exact(t))} km/h",
            rf"volume of {number} cubic centimetres and a mass of {number} grams": lambda v, m: (
                f"{plain(exact(m) / exact(v))} g/cm3"
            ),
            rf"resistor of {number} ohms is connected to {number} volts": lambda r, v: (
                f"{plain(exact(v) / exact(r))} A"
            ),
            rf"echo after {number} seconds": lambda t: f"{plain(exact(t) * 170)} m",
            rf"load of {number} newtons hangs {number} metres? .* force, {number} metres": lambda f, d, e: (
                f"{plain(exact(f) * exact(d) / exact(e))} N"
            ),
            rf"temperature of {number} degrees": lambda c: f"{exact(c) + Decimal('273.15')} K",
            rf"of {number} watts runs for {number} hours?": lambda p, h: f"{plain(exact(p) * exact(h) / 1000)} kWh",
        },
    )
    for text, part in samples("science"):
        density = re.fullmatch(r"(.*) g/cm3", part["answer"])
        if density:
            expected = "floats" if Decimal(density[1]) < 1 else "hovers" if Decimal(density[1]) == 1 else "sinks"
            assert text.endswith(f"so it {expected}."), text

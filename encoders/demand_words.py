"""The small words of a demand: numbers, windows, comparisons, as a grammar over its tokens.

Each parser below (parsy) reads tokens from where it stands and gives a value or fails. What is
said but cannot be meant ("0 days", "a few weeks") is a :class:`Vague`, so that it can be named.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

import parsy

MAX_DAYS = 3_650
MAX_NUMBER = 1e9

_TOKEN = re.compile(
    r"\"(?P<quote>[^\"]{1,300})\""
    r"|(?P<date>\d{4}-\d{2}-\d{2})"
    r"|(?P<number>(?<![\w.])(?<!(?<!\d)-)\$?\d{1,15}(?:,\d{3})*(?:\.\d+)?(?:[kK]\b|\+)?(?![\w]))"
    r"|(?P<word>[^\W_]+(?:'[^\W_]+)?)"
    r"|(?P<mark>[^\w\s]|_)"
)
_MARKS = str.maketrans(
    {**dict.fromkeys("«»“”„‟", '"'), **dict.fromkeys("‘’‚‛", "'"), **dict.fromkeys("–—―", ","),
     **dict.fromkeys("،、；؛，", ","), **dict.fromkeys("。¡¿", ".")}
)  # fmt: skip

_ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
         "fifteen sixteen seventeen eighteen nineteen").split()  # fmt: skip
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SMALL = {**{w: n for n, w in enumerate(_ONES)}, **{w: 10 * n for n, w in enumerate(_TENS, 2)}}
_LARGE = {"hundred": 100, "thousand": 1_000, "dozen": 12, "dozens": 12, "million": 1_000_000}
_UNITS = {"day": 1, "week": 7, "fortnight": 14, "month": 30, "quarter": 90, "year": 365}
_VAGUE = {"few", "several", "some", "many", "couple"}
_RHYTHM = {"every", "each", "daily", "weekly", "monthly", "regularly", "often", "rarely", "per"}

SPELT = frozenset(
    """bought purchased visited spent redeemed clicked browsed haven't havent
    hasn't didn't without except excluding exclude never least most more than fewer less
    between times days weeks months years last past previous within during dollars coupon
    coupons married unmarried people households customers homeowners renters""".split()
)
"""Words that a slip of the pen must not hide."""


@dataclass(frozen=True)
class Token:
    """A word, a number, a date, a quoted name or a mark, and where it stands in the demand."""

    text: str  # lower case; a number without its signs
    kind: str
    start: int
    end: int
    value: float = math.nan
    money: bool = False
    capital: bool = False


@dataclass(frozen=True)
class Range:
    """Between two ends; an open end is not itself inside."""

    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False

    def whole(self) -> tuple[int | None, int | None]:
        """Both ends as counts that are inside."""
        low = None if self.low is None else _above(self.low) if self.low_open else _ceil(self.low)
        if self.high is None:
            return low, None
        high = _ceil(self.high) - 1 if self.high_open else math.floor(self.high)
        return low, high


@dataclass(frozen=True)
class Window:
    """The last so many days."""

    days: int


@dataclass(frozen=True)
class Vague:
    """Something said about time or number that cannot be counted."""


def cleaned(demand: str) -> str:
    """The demand without control characters, its punctuation and digits in one alphabet.

    >>> cleaned("« coffee » in the last ３０\\u00a0days\\x00")
    '" coffee " in the last 30 days'
    """
    text = unicodedata.normalize("NFKC", demand).translate(_MARKS)
    kept = (c if not unicodedata.category(c).startswith("C") else " " * c.isspace() for c in text)
    return re.sub(r"[^\S ]", " ", "".join(kept)).strip()


def tokens(text: str, *, known: Container[str] = frozenset()) -> list[Token]:
    """The tokens of a cleaned demand; slips in :data:`SPELT` mended, but for ``known`` words."""
    found = []
    for match in _TOKEN.finditer(text):
        kind, said = match.lastgroup or "mark", match.group().lower()
        value, money = math.nan, said.startswith("$")
        if kind == "number":
            digits = said.strip("$+k").replace(",", "")
            value = float(digits) * (1_000 if said.endswith("k") else 1)
        elif kind == "quote":
            said = match["quote"]
        elif kind == "word":
            said = _spelt(said, known)
        capital = match.group()[0].isupper() and not text.isupper()
        found.append(Token(said, kind, match.start(), match.end(), value, money, capital))
    return found


def _spelt(word: str, known: Container[str]) -> str:
    if word in SPELT or word in known or len(word) < 4 or not word.isalpha():
        return "the" if word == "teh" else word
    close = get_close_matches(word, sorted(SPELT), 1, 0.79)
    # "redeem" and "shoppe" are words of their own, "powdered" is not "ordered".
    slip = close and close[0][0] == word[0] and not close[0].startswith(word)
    return close[0] if slip and abs(len(close[0]) - len(word)) <= 2 else word


def word(*texts: str) -> parsy.Parser:
    """One of these words or marks."""
    wanted = frozenset(texts)
    return parsy.test_item(lambda t: t.text in wanted and t.kind != "quote", "/".join(texts))


def words(phrase: str) -> parsy.Parser:
    """These words in a row."""
    return parsy.seq(*(word(each) for each in phrase.split()))


def phrase(*phrases: str) -> parsy.Parser:
    """One of these phrases, the longest first."""
    return parsy.alt(*map(words, sorted(phrases, key=lambda p: -len(p.split()))))


def item(kind: str) -> parsy.Parser:
    """A token of this kind."""
    return parsy.test_item(lambda t: t.kind == kind, kind)


def _spoken(parts: list[int]) -> float:
    """Small numbers and multipliers in their order: one hundred and twenty → [1, 100, 20]."""
    total = group = 0
    for part in parts:
        if part in (1_000, 1_000_000):
            total, group = total + (group or 1) * part, 0
        elif part in (12, 100) and group and part > group % 100:
            group = group * part
        else:
            group += part
    return float(total + group)


def _in_range(value: float) -> parsy.Parser:
    return parsy.success(value) if 0 <= value <= MAX_NUMBER else parsy.fail("a number")


_hyphen = word("-").optional()
_small = parsy.test_item(lambda t: t.text in _SMALL, "number").map(lambda t: _SMALL[t.text])
_large = parsy.test_item(lambda t: t.text in _LARGE, "number").map(lambda t: _LARGE[t.text])
_part = _hyphen >> (_small | _large) | word("and") >> (_small | _large)
_article = (word("a", "an") >> _large).map(lambda n: [1, n] if n != 12 else [12])
_counted = parsy.seq(_article, _part.many()).combine(lambda a, b: [*a, *b])
_counted |= parsy.seq((_small | _large).map(lambda n: [n]), _part.many()).combine(
    lambda a, b: [*a, *b]
)
_digits = item("number").map(lambda t: t.value)
_scaled = parsy.seq(_digits, _large).combine(lambda n, scale: n * scale)
number = (_scaled | _digits | _counted.map(_spoken)).bind(_in_range)
"""A number in digits or words."""

_currency = word("dollars", "dollar", "usd", "euros", "euro", "bucks", "$", "€")
_comma_free = word("of").optional()


def _ranges(amount: parsy.Parser, unit: parsy.Parser) -> parsy.Parser:
    """A number with a unit after it, compared or not; a bare one is the pair (n, n) as "= n"."""

    def low(n: float) -> Range:
        return Range(low=n)

    def both(a: float, b: float) -> Range:
        return Range(low=min(a, b), high=max(a, b))

    least = phrase("at least", "no fewer than", "no less than", "not less than", "minimum",
                   "from", "more than or equal to")  # fmt: skip
    most = phrase("at most", "no more than", "not more than", "up to", "maximum")
    over = phrase("more than", "over", "above", "greater than", "older than", "exceeding")
    under = phrase("fewer than", "less than", "under", "below", "younger than")
    or_more = phrase("or more", "or older", "or over", "or above", "and more", "and over",
                     "or higher", "plus", "and older", "+")  # fmt: skip
    or_less = phrase("or fewer", "or less", "or younger", "or under")
    n = amount << unit
    plain = amount << unit.optional()
    joined = word("and", "to", "-", "or")
    return parsy.alt(
        parsy.seq(word("between") >> plain << joined, n).combine(both),
        parsy.seq(least >> plain << word("and") << most, n).combine(both),
        least >> n.map(low),
        most >> n.map(lambda v: Range(high=v)),
        over >> n.map(lambda v: Range(low=v, low_open=True)),
        under >> n.map(lambda v: Range(high=v, high_open=True)),
        phrase("exactly", "only", "just", "precisely") >> n.map(lambda v: Range(v, v)),
        parsy.seq(plain << word("to", "-"), n).combine(both),
        (plain << or_more << unit.optional()).map(low),
        (plain << or_less << unit.optional()).map(lambda v: Range(high=v)),
    )


_no_unit = parsy.success(None)
compared = _ranges(number, _no_unit)
"""A comparison with a plain number: "over 45", "between 25 and 44", "3 or more"."""

_times = word("times", "time", "visits", "trips", "purchases", "orders", "occasions")
_once = word("once").result(1.0) | word("twice").result(2.0) | word("thrice").result(3.0)
count: parsy.Parser = parsy.alt(
    _ranges(_once, _no_unit),
    _once.map(lambda n: Range(low=n)),
    _ranges(number, _times),
    (number << _times).map(lambda n: Range(low=n)),
)
"""How often: "at least 3 times", "twice", "once or more"."""

_sum = parsy.alt(
    item("number").bind(lambda t: parsy.success(t.value) if t.money else parsy.fail("money")),
    number << _currency,
)
_ends_with_money = _ranges(number, _currency) | _ranges(_sum, _no_unit)
money: parsy.Parser = _ends_with_money | _sum.map(lambda n: Range(low=n))
"""How much, with a currency said."""

_unit = parsy.test_item(lambda t: t.text.removesuffix("s") in _UNITS, "unit of time").map(
    lambda t: _UNITS[t.text.removesuffix("s")]
)
_hours = word("hours", "hour")


def _window(days: float) -> Window | Vague:
    return Window(int(days)) if 1 <= days <= MAX_DAYS else Vague()


_half = (phrase("half a", "half", "half of a") >> _unit).map(lambda u: 180 if u == 365 else u // 2)
_senseless = parsy.test_item(lambda t: t.kind == "word" and t.text[:1].isdigit(), "a number")
span: parsy.Parser = parsy.alt(
    _half.map(_window),
    parsy.seq(number, _hyphen >> _unit).combine(lambda n, unit: _window(n * unit)),
    (number << _hours).map(lambda n: _window(max(1.0, math.ceil(n / 24)))),
    parsy.seq(word(*_VAGUE), word("of").optional(), _unit | _hours).result(Vague()),
    parsy.seq(_senseless, _unit | _times).result(Vague()),
    (word("a", "an", "one") >> _unit).map(_window),
)
"""A length of time: "two weeks", "half a year", "24 hours"."""

_into = word("in", "within", "during", "over", "for", "throughout", "of")
_determined = phrase("the", "this", "these", "those", "our")
_latest = word("last", "past", "previous", "preceding", "recent")


def window(as_of: datetime) -> parsy.Parser:
    """A stretch of the past that ends at ``as_of``."""

    def since(token: Token) -> Window | Vague:
        try:
            return _window((as_of.date() - datetime.fromisoformat(token.text).date()).days)
        except ValueError:
            return Vague()

    latest = _into.optional() >> _determined.optional() >> _latest
    return parsy.alt(
        latest >> (span | _unit.map(_window)),
        _into >> span,
        (phrase("since") >> item("date")).map(since),
        word("yesterday").result(Window(1)),
        parsy.seq(word(*_RHYTHM), _unit.optional()).result(Vague()),
        phrase("recently", "lately", "a while ago", "some time ago", "long ago", "not long ago",
               "once upon a time").result(Vague()),
    )  # fmt: skip


def prefix(parser: parsy.Parser, rest: list[Token]) -> tuple[Any, int] | None:
    """What the parser reads at the start of ``rest`` and how many tokens that is, or None."""
    try:
        value, remainder = parser.parse_partial(rest)
    except parsy.ParseError:
        return None
    return value, len(rest) - len(remainder)


def _above(value: float) -> int:
    return math.floor(value) + 1


def _ceil(value: float) -> int:
    return math.ceil(value)

"""What a demand says about who people are, read as rules over the columns that are registered.

Nothing here knows a data set: a column is found by the words of its name, a band such as "45-54",
"Under 15K" or "3+" by its spelling. What is said about a column that is not there is
:class:`Unread`, so that nobody believes it was heeded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import parsy

from encoders.demand_bands import bands_in, is_banded
from encoders.demand_words import Range, Token, compared, number, phrase, prefix, word
from feature_repo.rules import MAX_VALUES, Not, Profile, Rule
from feature_repo.vocabulary import Vocabulary

PEOPLE = frozenset(
    """people persons person households household families family customers customer shoppers
    shopper users user buyers everybody everyone those women men woman man parents couples couple
    clients members guests fans lovers""".split()
)
_GENDERS = {
    **dict.fromkeys(("women", "woman", "female", "females", "ladies"), ("female", "f", "woman")),
    **dict.fromkeys(("men", "man", "male", "males", "gentlemen"), ("male", "m", "man")),
}
_CUES = {  # what is said → words of a column's name, and the sentence around it
    "age": frozenset({"age"}),
    "income": frozenset({"income", "salary", "earnings"}),
    "kids": frozenset({"kids", "children"}),
    "size": frozenset({"size"}),
    "tenure": frozenset({"tenure"}),
    "basket": frozenset({"basket"}),
}
_CHILDREN = word("kids", "kid", "children", "child")
_PERSONS = word("people", "persons", "person", "members", "member", "heads")
_HOUSEHOLDS = word("household", "households", "family", "families")
_IS = word("is", "are", "was", "=", ":", "of", "in").many()
_OFTEN = word("mainly", "mostly", "usually", "typically", "primarily")
_SHOP = word("shop", "shops", "shopping", "buy", "buys")


@dataclass(frozen=True)
class Unread:
    """Something about people that no column tells; ``kept`` leaves it in the sentence."""

    kept: bool = False


@dataclass(frozen=True)
class Found:
    """A rule, what was assumed for it, and how many tokens said it."""

    rule: Rule | Unread
    length: int
    note: str | None = None


class ProfilePhrases:
    """Finds phrases about profile columns in tokens."""

    def __init__(self, vocabulary: Vocabulary):
        self._columns = vocabulary.columns
        own = [name for name in self._columns if not name.startswith("agg_")]
        self._own = [name for name in own if name.startswith("profile_")]
        self._named = {words: name for name in own if (words := _name_words(name))}
        self._value_of = cache(self._values)  # a store has hundreds of values

    def at(
        self, tokens: Sequence[Token], n: int, *, plain: bool = False, follows: bool = False
    ) -> Found | None:
        """What stands at token ``n``.

        Args:
            follows: token ``n - 1`` ended another rule.
            plain: only what nobody could mean of a purchase ("between 25 and 44 years old").
        """
        rest = list(tokens[n:])
        before = tokens[n - 1].text if n and not follows else ""
        if plain:
            return next(self._plain_age(rest), None) or next(self._income(rest, before), None)
        for read in (
            self._age, self._income, self._children, self._size, self._tenure, self._basket,
            self._named_column, self._habit, self._gender, self._value, self._score, self._vague,
        ):  # fmt: skip
            for found in read(rest, before):
                return found
        return None

    # --- numbers and bands

    def _plain_age(self, rest: list[Token]) -> Iterator[Found]:
        if found := prefix(_DECADE, rest):
            yield Found(Unread(), found[1])
        elif found := prefix(_AGED, rest):
            yield self._numeric("age", found)

    def _age(self, rest: list[Token], before: str) -> Iterator[Found]:
        yield from self._plain_age(rest)
        found = prefix(compared, rest)
        if found is None or not (before in PEOPLE or before in ("", ",", "and", ".", ";", "or")):
            return
        follows = rest[found[1]].text if found[1] < len(rest) else ""
        if follows not in _NO_AGE and _an_age(found[0]):
            yield self._numeric("age", found)

    def _income(self, rest: list[Token], before: str) -> Iterator[Found]:
        much = compared.map(_thousands)
        dollars = word("dollars", "euros", "usd").optional()
        earning = phrase("income", "incomes", "earning", "earnings", "who earn", "earn", "salary",
                         "household income")  # fmt: skip
        yearly = phrase("a year", "per year", "annually").optional()
        said = word("an", "a").optional() >> earning >> _IS >> much << dollars << yearly
        if found := prefix(said, rest):
            yield self._numeric("income", found)

    def _children(self, rest: list[Token], before: str) -> Iterator[Found]:
        none = phrase("without", "with no", "no", "having no") >> word("any").optional()
        childless = (none >> _CHILDREN).result(Range(0, 0)) | word("childless").result(Range(0, 0))
        some = word("with", "having") >> _CHILDREN.result(Range(low=1))
        counted = word("with", "having").optional() >> (compared | number.map(_exactly))
        if found := prefix(parsy.alt(childless, some, counted << _CHILDREN), rest):
            yield self._numeric("kids", found)

    def _size(self, rest: list[Token], before: str) -> Iterator[Found]:
        hyphen = word("-").optional()
        single = (word("single") >> hyphen >> _PERSONS >> _HOUSEHOLDS).result(_exactly(1))
        n_person = (number << hyphen << _PERSONS << _HOUSEHOLDS).map(_exactly)
        of_n = _HOUSEHOLDS >> phrase("of", "with") >> (compared | number.map(_exactly))
        said = parsy.alt(single, n_person, of_n << _PERSONS)
        said |= word("with") >> (compared | number.map(_exactly)) << _PERSONS
        if found := prefix(said, rest):
            yield self._numeric("size", found)

    def _tenure(self, rest: list[Token], before: str) -> Iterator[Found]:
        days = word("days", "day").result(1) | word("weeks", "week").result(7)
        days |= word("months", "month").result(30) | word("years", "year").result(365)
        said = parsy.seq(
            phrase("customers for", "customer for", "members for", "been with us for") >> compared,
            days,
        ).combine(_scaled)
        if found := prefix(said, rest):
            yield self._numeric("tenure", found)

    def _basket(self, rest: list[Token], before: str) -> Iterator[Found]:
        said = word("an", "the").optional() >> phrase(
            "average basket", "average basket value", "basket value", "average bill",
        ) >> _IS >> compared << word("dollars", "euros", "usd").optional()  # fmt: skip
        if found := prefix(said, rest):
            yield self._numeric("basket", found)

    def _numeric(self, cue: str, found: tuple[object, int]) -> Found:
        said, length = found
        column = self._by_cue(_CUES[cue])
        if column is None or not isinstance(said, Range):
            return Found(Unread(), length)
        if self._columns[column].continuous:
            return Found(_number_rule(column, said), length)
        inside, astride = bands_in(said, self._columns[column].values)
        if not 1 <= len(inside) <= MAX_VALUES:
            return Found(Unread(), length)
        rule = (
            Profile(column, "in", inside) if len(inside) > 1 else Profile(column, "is", inside[0])
        )
        note = f"{column} is known in bands: {', '.join(map(str, inside))}."
        if astride:
            note += f" Left out, since they lie on both sides: {', '.join(astride)}."
        return Found(rule, length, note)

    def _by_cue(self, cue: frozenset[str]) -> str | None:
        fitting = [name for name in self._columns if cue & set(_name_words(name))]
        banded = [
            n for n in fitting if self._columns[n].continuous or is_banded(self._columns[n].values)
        ]
        return min(banded, key=lambda name: (name.startswith("agg_"), len(name)), default=None)

    # --- values

    def _named_column(self, rest: list[Token], before: str) -> Iterator[Found]:
        """ "main store is 292 or 356", "city Berlin", "premium plan"."""
        for words, column in self._named.items():
            if self._columns[column].continuous:
                if found := prefix(phrase(" ".join(words)) >> _IS >> compared, rest):
                    yield Found(_number_rule(column, found[0]), found[1])
                continue
            value = self._value_of(column)
            said = phrase(" ".join(words)) >> _IS >> value.sep_by(_or, min=1)
            said |= (
                word("on").optional()
                >> word("the", "a").optional()
                >> value.map(lambda one: [one])
                << phrase(" ".join(words))
            )
            if found := prefix(said, rest):
                yield Found(_is_in(column, found[0]), found[1])

    def _habit(self, rest: list[Token], before: str) -> Iterator[Found]:
        """ "shop mostly in the morning", "evening shoppers"."""
        if "main_daypart" not in self._columns:
            return
        often = parsy.alt(_SHOP >> _OFTEN, _OFTEN >> _SHOP)
        value = self._value_of("main_daypart") << word("s").optional()
        if found := prefix(often >> phrase("in the", "at", "in") >> value, rest):
            yield Found(Profile("main_daypart", "is", found[0]), found[1])

    def _gender(self, rest: list[Token], before: str) -> Iterator[Found]:
        meant = _GENDERS.get(rest[0].text) if rest[0].kind == "word" else None
        if meant is None:
            return
        for column in self._own:
            for value in self._columns[column].values:
                if value.lower() in meant:
                    yield Found(Profile(column, "is", value), 1)
        yield Found(Unread(kept=True), 1)

    def _value(self, rest: list[Token], before: str) -> Iterator[Found]:
        """A value said alone, where it can only be meant of the people: "married", "from Seoul"."""
        place = phrase("from", "living in", "who live in", "based in", "lives in", "located in")
        for column in self._own:
            values = self._value_of(column, 3)
            if found := prefix((place | word("in")) >> values.sep_by(_or, min=1), rest):
                yield Found(_is_in(column, found[0]), found[1])
            found = prefix(word("not").optional() >> values, rest)
            if found is None:
                continue
            after = rest[found[1]].text if found[1] < len(rest) else ""
            if (before in PEOPLE or before in _BEFORE_VALUE) and (after in PEOPLE | _AFTER_VALUE
                    or self._starts_value(rest[found[1]:])):  # fmt: skip
                rule: Rule = Profile(column, "is", found[0])
                yield Found(Not(rule) if rest[0].text == "not" else rule, found[1])
        if found := prefix(place >> parsy.test_item(_is_name, "a place"), rest):
            yield Found(Unread(), found[1])
        known = {"married", "unmarried", "single", "divorced", "homeowners", "renters", "retired"}
        after = rest[1].text if len(rest) > 1 else ""
        if (
            rest[0].text in known
            and before in _BEFORE_VALUE | PEOPLE
            and after in (PEOPLE | _AFTER_VALUE)
        ):
            yield Found(Unread(), 1)

    def _starts_value(self, rest: list[Token]) -> bool:
        return any(prefix(self._value_of(column, 3), rest) for column in self._own)

    def _values(self, column: str, least: int = 1) -> parsy.Parser:
        values = sorted(self._columns[column].values, key=lambda v: (-len(v), v))
        said = []
        for value in values:
            words = re.findall(r"[^\W_]+", value.lower())
            if words and (least == 1 or (len(value) >= least and value[0].isalpha())):
                said.append(_value_words(words).result(value))
        return parsy.alt(*said) if said else parsy.fail("a value")

    def _score(self, rest: list[Token], before: str) -> Iterator[Found]:
        """Any other number that people are said to have: no column tells it."""
        name = parsy.test_item(lambda t: t.kind == "word", "a name").at_least(1)
        for length in range(1, 6):
            having = word("with") >> word("a", "an").optional() >> name.times(0, 0)
            head = prefix(having, rest)
            if head is None:
                return
            start = head[1] + length
            if all(t.kind == "word" for t in rest[head[1] : start]) and len(rest) > start:
                if found := prefix(compared, rest[start:]):
                    yield Found(Unread(), start + found[1])

    def _vague(self, rest: list[Token], before: str) -> Iterator[Found]:
        high = word("high", "low", "middle", "higher", "lower") >> word("income", "earning")
        if found := prefix(high, rest):
            yield Found(Unread(kept=True), found[1])


def _exactly(n: float) -> Range:
    return Range(n, n)


_YEARS = phrase("years old", "years of age", "year olds", "years", "year old", "old")
_AGED = parsy.alt(
    word("aged", "age", "ages") >> _IS >> (compared | number.map(_exactly)) << _YEARS.optional(),
    compared << _YEARS,
)
_DECADE = phrase("in their") >> parsy.test_item(
    lambda t: t.kind == "word" and t.text.endswith("ies"), "decade"
)
_or = word(",").optional() >> word("or", "and", ",").optional()
_NO_AGE = {
    "dollars", "dollar", "euros", "euro", "usd", "times", "time", "days", "weeks", "months",
    "day", "week", "percent", "%", "items", "people", "kids", "children", "thousand", "baskets",
    "coupons", "products", "purchases", "persons", "-",
}  # fmt: skip
_BEFORE_VALUE = {"", ",", "and", "or", "but", "are", "is", "not", ".", ";", "who", "the", "all"}
_AFTER_VALUE = {"", ",", "and", "or", "but", "who", "that", "with", "without", ".", ";", "likely",
                "under", "over", "aged", "living", "from", "!", "?"}  # fmt: skip


def _value_words(words: list[str]) -> parsy.Parser:
    """The words of a value; the last may be said of many."""
    last = word(words[-1], f"{words[-1]}s")
    return parsy.seq(*(word(each) for each in words[:-1]), last)


def _is_name(token: Token) -> bool:
    return token.kind == "word" and token.capital


def _name_words(column: str) -> tuple[str, ...]:
    """The words of a column's name as tokens spell them: "profile_HouseholdSize" says two."""
    name = column.removeprefix("profile_").removeprefix("agg_")
    apart = re.sub(r"(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return tuple(re.findall(r"[^\W_]+", apart.lower()))


def _is_in(column: str, values: object) -> Rule:
    assert isinstance(values, list)
    distinct = tuple(dict.fromkeys(values))
    if len(distinct) == 1:
        return Profile(column, "is", distinct[0])
    return Profile(column, "in", distinct)


def _number_rule(column: str, said: object) -> Rule:
    assert isinstance(said, Range)
    if said.low is not None and said.high is not None:
        return Profile(column, "between", (said.low, said.high))
    if said.low is not None:
        return Profile(column, "at_least", said.low)
    return Profile(column, "at_most", said.high)


def _thousands(said: Range) -> Range:
    """ "between 50 and 100 thousand": what is said of the last number holds for both."""
    if said.low is not None and said.high is not None and said.low < 1_000 <= said.high:
        scaled = said.low * 1_000
        return replace(said, low=scaled) if scaled <= said.high else said
    return said


def _scaled(said: Range, by: float) -> Range:
    low, high = (None if end is None else end * by for end in (said.low, said.high))
    return replace(said, low=low, high=high)


def _an_age(said: object) -> bool:
    ends = [e for e in (said.low, said.high) if e is not None] if isinstance(said, Range) else []
    return bool(ends) and all(10 <= end <= 110 for end in ends)

"""Sentences about what a user will do: five kinds, filled from facts (FOUND 4.1).

Wording 0 of each kind is the paper's template (word for word for purchases, in its manner for the
others) and names an amount or a count. The further wordings say the same as a marketer would,
with the horizon spoken, so that a demand typed later is not a foreign language.

Numbers are rounded down to 1, 2 or 5 times a power of ten; at most three items are listed, then
"etc."; item names are lower-cased, since catalogues shout.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10

MAX_ITEMS = 3
NOTHING = ""
"""Subject of the fact that a user bought nothing at all."""

_TEMPLATES: dict[str, tuple[str, ...]] = {
    "purchase": (
        "The user purchased {items} amounting more than {num} dollars with {status} payment.",
        "will buy {items} in the next {horizon}",
        "people who buy {items}",
        "households that are going to purchase {items} next month",
        "{items}",
        "likely to need {items} soon",
    ),
    "browsing": (
        "The user browsed {items} more than {num} times.",
        "will browse {items} in the next {horizon}",
        "people who visit {items}",
    ),
    "search": (
        "The user searched for {items} more than {num} times.",
        "will search for {items} in the next {horizon}",
        "people who look for {items}",
    ),
    "click": (
        "The user clicked {items} more than {num} times.",
        "will click on {items} in the next {horizon}",
        "people who are interested in {items}",
    ),
    "channel": (
        "The user paid more than {num} dollars by {items}.",
        "will pay by {items} in the next {horizon}",
        "people who use a {items}",
    ),
}
SOMETHING_ELSE = "The user purchased something else."
"""Said of a user who bought only what no sentence is about."""
_NOTHING_BOUGHT = (
    "The user purchased nothing.",
    "will not shop at all in the next {horizon}",
    "people who stay away",
    "households that are going to buy nothing next month",
)
_OUTCOMES: dict[str, tuple[str, ...]] = {
    "nothing": (
        "will not shop at all in the next {horizon}",
        "people who stay away for {horizon}",
        "customers we are about to lose, no visit for {horizon}",
        "will stop coming to the store over the next {horizon}",
        "lapsing shoppers who will not come back within {horizon}",
    ),
    "a lot": (
        "will spend a lot in the next {horizon}",
        "the biggest spenders of the next {horizon}",
        "households that are going to spend much money over {horizon}",
        "our most valuable shoppers of the coming {horizon}",
        "people with a high total bill in the next {horizon}",
    ),
    "more": (
        "will spend clearly more than in the last {horizon}",
        "households whose spending rises over the next {horizon}",
        "people about to increase what they spend in {horizon}",
        "shoppers on the way up: a larger bill than in the past {horizon}",
    ),
    "coupon": (
        "will redeem a coupon in the next {horizon}",
        "people who use coupons within {horizon}",
        "households that are going to respond to a coupon offer over {horizon}",
        "bargain hunters who will hand in vouchers in the next {horizon}",
        "likely to cash in a discount coupon within {horizon}",
    ),
}
_COUNTED = {"browsing", "search", "click"}  # kinds whose {num} is a count, not an amount
_WEEKS = ("", "one week", "two weeks", "three weeks", "four weeks", "five weeks", "six weeks",
          "seven weeks", "eight weeks")  # fmt: skip


def num_wordings(kind: str, *, nothing: bool = False) -> int:
    """How many ways there are to say a fact of this kind."""
    return len(_NOTHING_BOUGHT if nothing else _TEMPLATES[kind])


def is_counted(kind: str) -> bool:
    """Whether the template's number is a count of events rather than an amount of money."""
    return kind in _COUNTED


def sentence(
    kind: str,
    subjects: Sequence[str],
    *,
    num: float = 0.0,
    status: str = "successful",
    horizon_days: int = 14,
    wording: int = 0,
    max_items: int = MAX_ITEMS,
) -> str:
    """One sentence about one fact, or about several of the same kind.

    >>> sentence("purchase", ["gold", "gold bars"], num=10_000)
    'The user purchased gold, gold bars amounting more than 10,000 dollars with successful payment.'
    >>> sentence("purchase", ["CHEESE"], horizon_days=28, wording=1)
    'will buy cheese in the next four weeks'
    """
    if subjects and subjects[0] == NOTHING:
        return _NOTHING_BOUGHT[wording].format(horizon=horizon_phrase(horizon_days))
    return _TEMPLATES[kind][wording].format(
        items=list_items(subjects, max_items),
        num=format_number(num),
        status=status,
        horizon=horizon_phrase(horizon_days),
    )


def num_outcome_wordings(outcome: str) -> int:
    """How many ways there are to say an outcome."""
    return len(_OUTCOMES[outcome])


def outcome_sentence(outcome: str, *, horizon_days: int, wording: int = 0) -> str:
    """One sentence about a user's overall behaviour (``schema.OUTCOME_NAMES``).

    >>> outcome_sentence("coupon", horizon_days=56)
    'will redeem a coupon in the next eight weeks'
    """
    return _OUTCOMES[outcome][wording].format(horizon=horizon_phrase(horizon_days))


def habit_sentence(kind: str, subject: str) -> str:
    """The plain sentence that stands for a subject on the user's side.

    Always the same horizon: it names what is counted, not when.

    >>> habit_sentence("purchase", "CHEESE")
    'will buy cheese in the next four weeks'
    """
    return plain_sentence(kind, subject, horizon_days=28)


def plain_sentence(kind: str, subject: str, *, horizon_days: int) -> str:
    """The sentence about one subject that training says most plainly.

    >>> plain_sentence("click", "CHEESE", horizon_days=14)
    'will click on cheese in the next two weeks'
    """
    return sentence(kind, [subject], horizon_days=horizon_days, wording=1)


def list_items(subjects: Sequence[str], max_items: int = MAX_ITEMS) -> str:
    """Names in a row, cut after ``max_items`` with "etc.".

    >>> list_items(["a", "b", "c", "d"])
    'a, b, c, etc.'
    """
    names = [subject.lower() for subject in subjects[:max_items]]
    return ", ".join(names + (["etc."] if len(subjects) > max_items else []))


def round_down(value: float) -> float:
    """The largest of 1, 2, 5 · 10^n that is at most ``value``; 0 below 1.

    >>> [round_down(v) for v in (0.3, 4.99, 5, 180)]
    [0.0, 2.0, 5.0, 100.0]
    """
    if value < 1:
        return 0.0
    power = 10.0 ** floor(log10(value))
    return next(step * power for step in (5.0, 2.0, 1.0, 0.5) if step * power <= value)


def format_number(value: float) -> str:
    """Digits with thousands separators, without a needless fraction."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def horizon_phrase(days: int) -> str:
    """Spoken length of the horizon: whole weeks up to eight in words.

    >>> horizon_phrase(28), horizon_phrase(10)
    ('four weeks', '10 days')
    """
    weeks, rest = divmod(days, 7)
    return _WEEKS[weeks] if rest == 0 and 0 < weeks < len(_WEEKS) else f"{days} days"

"""Reading one clause about past behaviour: its verb, and what stands around it.

What is read here has no meaning yet (:mod:`encoders.demand_behaviour` gives it one): which verb,
whether it is denied, which window, number and amount, and which tokens name its objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import parsy

from encoders.demand_subjects import SubjectsOfVerbs
from encoders.demand_words import (
    Range,
    Token,
    Vague,
    Window,
    count,
    item,
    money,
    number,
    phrase,
    prefix,
    window,
    word,
)

_DONE = {
    "bought": "bought", "purchased": "bought", "ordered": "bought", "spent": "spent",
    "redeemed": "redeemed", "shopped": "shopped", "visited": "shopped", "clicked": "clicked",
    "browsed": "browsed", "searched": "searched",
}  # fmt: skip
_BASE = {
    "buy": "bought", "purchase": "bought", "order": "bought", "spend": "spent",
    "redeem": "redeemed", "shop": "shopped", "visit": "shopped", "click": "clicked",
    "browse": "browsed", "search": "searched",
}  # fmt: skip
DENIALS = frozenset(
    """not never no without except excluding exclude minus haven't hasn't hadn't didn't havent
    hasnt didnt nobody""".split()
)
_LEADS = frozenset(
    """who that which whose people customers customer households everyone everybody anyone anybody
    those all shoppers users buyers have has had having also already did ever yet been one but and
    they the""".split()
)
NOISE = frozenset(
    """on of for any a an the some our at with to in from worth dollars their my coupon coupons
    using via again ever already least most times time before us store stores shop till
    there""".split()
)
_AT_THE_SHOP = frozenset("to in at shopping".split())
PRONOUNS = frozenset("it them one ones something anything thing things that".split())
_NEXT = frozenset(
    """will would likely who that which whose have has had but are is and not never next
    soon going about""".split()
)


@dataclass
class Said:
    """What has been read of a clause so far; positions count from its first token."""

    window: Window | Vague | None = None
    count: Range | None = None
    amount: Range | None = None
    objects: list[tuple[bool, list[int]]] = field(default_factory=lambda: [(False, [])])
    joined: str = "and"
    vague: list[tuple[int, int]] = field(default_factory=list)
    bare_amount: bool = False

    @property
    def named(self) -> list[tuple[bool, list[int]]]:
        return [(denied, where) for denied, where in self.objects if where]

    @property
    def is_vague(self) -> bool:
        """Whether a number or a window was said that cannot be counted."""
        bare = self.bare_amount and not isinstance(self.window, Window)
        others = len(self.vague) - self.bare_amount
        return bare or isinstance(self.window, Vague) or others > 0


class ClauseReader:
    """Reads what stands around a verb.

    Args:
        subjects: what rules may name.
    """

    def __init__(self, subjects: SubjectsOfVerbs, as_of: datetime):
        self._subjects = subjects
        self.window = window(as_of)

    def body(self, rest: list[Token], start: int, verb: str) -> tuple[Said, int]:
        """What is said from token ``start`` to the clause's end, and that end."""
        said, n = Said(), start
        while n < len(rest):
            token = rest[n]
            if step := self._number(said, rest[n:], verb, n):
                n += step
            elif token.kind == "mark":
                if token.text in ("-", "'", "/", "&", ":") and not _is_closing(rest, n):
                    n += 1
                elif token.text == "," and self._enumerates(rest, verb, n):
                    said.objects.append((said.objects[-1][0], []))
                    n += 1
                else:
                    break
            elif token.text in ("and", "or", "nor", "but"):
                step = self._joined(said, rest, verb, n)
                if not step:
                    break
                n += step
            elif token.text in _NEXT and not _denies_object(rest, n):
                break
            elif n + 1 < len(rest) and head(rest[n:]) and token.text not in NOISE:
                break
            else:
                if token.text not in NOISE and token.kind in ("word", "number", "quote"):
                    said.objects[-1][1].append(n)
                n += 1
        return said, n

    def _number(self, said: Said, rest: list[Token], verb: str, n: int) -> int:
        """Takes in a window, a count or an amount; returns its length."""
        if found := prefix(self.window, rest):
            said.window = said.window or found[0]
            if isinstance(found[0], Vague):
                said.vague.append((n, n + found[1]))
            return found[1]
        if rest[0].text == "-" and len(rest) > 1 and rest[1].kind == "number":
            said.vague.append((n, n + 2))
            return 3 if len(rest) > 2 and rest[2].text in ("times", "days", "dollars") else 2
        if _senseless(rest):
            said.vague.append((n, n + 1))
            return 1
        if found := prefix(money, rest):
            said.amount = found[0]
            return found[1]
        if verb == "spent" and (found := prefix(_bare, rest)):
            said.amount, said.bare_amount = found[0], True
            said.vague.append((n, n + found[1]))
            return found[1]
        if found := prefix(count, rest):
            said.count = found[0]
            return found[1]
        if verb == "bought" and (found := prefix(_bare | _plain_number, rest)):
            said.count = found[0]
            return found[1]
        if verb == "redeemed" and (found := prefix(_coupons, rest)):
            said.count = found[0]
            return found[1]
        return 0

    def _enumerates(self, rest: list[Token], verb: str, n: int) -> bool:
        """Whether the comma at ``n`` stands in "A, B or C": a subject follows, and a list ends."""
        for end in range(n + 1, min(len(rest), n + 6)):
            if rest[end].text in ("and", "or", ","):
                words = list(range(n + 1, end))
                plain = all(rest[i].text not in _NEXT | DENIALS for i in words)
                if not words or not plain or head(rest[n + 1 :]):
                    return False
                return self.is_named(rest, words, verb)
            if rest[end].kind != "word":
                return False
        return False

    def _joined(self, said: Said, rest: list[Token], verb: str, n: int) -> int:
        """Tokens of "and", "or", "but not" if another object follows, else 0."""
        conjunction, after = rest[n].text, n + 1
        denied = said.objects[-1][0]
        if after < len(rest) and rest[after].text in ("not", "no") and conjunction != "or":
            after, denied = after + 1, True
        elif conjunction == "but":
            return 0
        following = rest[after] if after < len(rest) else None
        if following is None or following.kind != "word" or head(rest[n + 1 :]):
            return 0
        if following.text in _NEXT | {"live", "aged", "spend"} or not said.named:
            return 0
        words = []
        for i in range(after, min(len(rest), after + 4)):
            if rest[i].kind != "word" or rest[i].text in _NEXT | {"in", "and", "or"}:
                break
            if prefix(self.window | count | money, rest[i:]):
                break
            words.append(i)
        if not self.is_named(rest, words, verb):
            return 0
        said.objects.append((denied, []))
        if conjunction in ("or", "nor"):
            said.joined = "or"
        return after - n

    def named(self, rest: list[Token], where: Sequence[int], verb: str) -> str | None:
        """The subject of the verb's rule that the tokens ``where`` name."""
        return self.subject(spoken(rest, where), verb)

    def subject(self, words: str, verb: str) -> str | None:
        """The subject of the verb's rule that the words name."""
        return self._subjects(words, rule_verb(verb)) if words else None

    def is_named(self, rest: list[Token], where: Sequence[int], verb: str) -> bool:
        """Whether the tokens ``where`` name a subject, be it that no rule may use it."""
        words = spoken(rest, where)
        return bool(words) and self._subjects.are_named(words, rule_verb(verb))


_bare = parsy.alt(
    phrase("more than", "over", "above") >> number.map(lambda n: Range(low=n, low_open=True)),
    phrase("at least") >> number.map(lambda n: Range(low=n)),
    phrase("less than", "under", "below") >> number.map(lambda n: Range(high=n, high_open=True)),
    phrase("at most") >> number.map(lambda n: Range(high=n)),
)
_plain_number = item("number").map(lambda t: Range(low=t.value))
_coupon = word("coupon", "coupons", "vouchers", "voucher", "offers")
_coupons = parsy.alt(
    phrase("at least") >> number.map(lambda n: Range(low=n)) << _coupon,
    phrase("more than") >> number.map(lambda n: Range(low=n, low_open=True)) << _coupon,
    number.map(lambda n: Range(low=n)) << _coupon,
)


def head(rest: Sequence[Token]) -> tuple[bool, str, int] | None:
    """Denial, verb and length of what a clause begins with; None if none begins here."""
    denied = helped = False
    n = 0
    while n < len(rest) and n < 10:
        text = rest[n].text
        if rest[n].kind == "quote":
            return None
        if text in DENIALS or text.endswith("n't"):
            denied = True
            helped = helped or text in ("didn't", "didnt")
        elif text == "but" and n + 2 < len(rest) and rest[n + 1].text == "nobody":
            denied = True
        elif text == "leave" and n + 1 < len(rest) and rest[n + 1].text == "out":
            denied, n = True, n + 1
        elif text == "picked" and n + 1 < len(rest) and rest[n + 1].text == "up":
            return denied, "bought", n + 2
        elif text == "been" and n + 1 < len(rest) and rest[n + 1].text in _AT_THE_SHOP:
            return (denied, "shopped", n + 2) if n else None
        elif text == "used" and any(t.text in ("coupon", "coupons") for t in rest[n + 1 : n + 4]):
            return denied, "redeemed", n + 1
        elif text in _DONE:
            return denied, _DONE[text], n + 1
        elif text in _BASE and helped:
            return denied, _BASE[text], n + 1
        elif text in _LEADS:
            helped = helped or text == "did"
        else:
            return None
        n += 1
    return None


def rule_verb(verb: str) -> str:
    """The verb of the rule that a verb of the demand becomes."""
    return "bought" if verb in ("spent", "shopped") else verb


def _is_closing(rest: Sequence[Token], n: int) -> bool:
    return n + 1 >= len(rest) or rest[n + 1].kind == "mark"


def _denies_object(rest: Sequence[Token], n: int) -> bool:
    return rest[n].text == "but" and n + 1 < len(rest) and rest[n + 1].text == "not"


def _senseless(rest: Sequence[Token]) -> bool:
    text = rest[0].text
    return rest[0].kind == "word" and text[:1].isdigit() and not text.isdigit()


def spoken(rest: Sequence[Token], where: Sequence[int]) -> str:
    """The tokens ``where`` as words."""
    return " ".join(rest[i].text for i in where)

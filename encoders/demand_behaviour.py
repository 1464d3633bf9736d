"""What a demand says people did, read as rules: "not bought cat food in the last 30 days".

A clause begins with a verb of the past (or a noun that means one: "no purchase", "inactive"),
with what denies it before, and ends at a mark or where another statement begins. In between stand
a window, a number and an amount in any order; whatever else is said is its object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import parsy

from encoders.demand_clause import DENIALS, NOISE, PRONOUNS, ClauseReader, Said, head, spoken
from encoders.demand_words import Token, Window, count, number, phrase, prefix, word
from feature_repo.rules import AnyOf, Behaviour, Not, Rule


@dataclass(frozen=True)
class Clause:
    """What one clause said; ``rules`` is empty if it cannot be meant."""

    rules: tuple[Rule, ...]
    length: int  # tokens
    unread: tuple[tuple[int, int], ...] = ()  # spans of tokens, from the clause's first
    spoken: str = ""  # its object, in the demand's words
    notes: tuple[str, ...] = ()


class BehaviourClauses:
    """Finds clauses about past behaviour in tokens.

    Args:
        verbs: what the data tell of.
        subject: words → the subject they name, or None.
    """

    def __init__(self, verbs: Sequence[str], subject: Callable[[str], str | None], as_of: datetime):
        self._verbs, self._reader = frozenset(verbs), ClauseReader(subject, as_of)

    def at(self, tokens: Sequence[Token], n: int, antecedent: str | None = None) -> Clause | None:
        """The clause that begins at token ``n``.

        Args:
            antecedent: the subject that "it", or no object at all, stands for.
        """
        rest = list(tokens[n:])
        if found := self._noun_clause(rest):
            return found
        begun = head(rest)
        if begun is None:
            return None
        denied, verb, start = begun
        said, end = self._reader.body(rest, start, verb)
        return self._meant(rest, end, denied, verb, said, antecedent)

    # --- reading

    def _noun_clause(self, rest: list[Token]) -> Clause | None:
        """What a noun or an adjective says: "inactive for 8 weeks", "no purchase of X in …"."""
        away = phrase(
            "inactive", "away", "absent", "been away", "been inactive", "lapsed", "dormant",
        ) >> self._reader.window  # fmt: skip
        if found := prefix(away, rest):
            return self._never("shopped", None, found[0], (0, found[1]), found[1])
        order = word("purchase", "purchases", "order", "orders", "visit", "visits")
        none = phrase("no", "without a", "without any", "without") >> order
        if found := prefix(none, rest):
            said, end = self._reader.body(rest, found[1], "bought")
            return self._meant(rest, end, True, "bought", said, None, noun=True)
        often = parsy.seq(
            word("with", "having", "made") >> count, self._reader.window | word("of").result(None)
        )  # "with at least 4 visits in …"
        if found := prefix(often, rest):
            said, end = self._reader.body(rest, 1, "bought")
            return self._meant(rest, end, False, "bought", said, None, noun=True)
        if (without := self._none_of(rest)) is not None:
            return without
        if (start := _no_such(rest)) and (read := self._reader.body(rest, start, "bought")):
            read[0].objects.insert(0, (False, list(range(1, start - 1))))
            return self._meant(rest, read[1], True, "bought", read[0], None)
        last = word("whose", "their").optional() >> phrase("last") >> order
        if found := prefix(last, rest):
            return self._last_time(rest, found[1])
        return None

    def _none_of(self, rest: list[Token]) -> Clause | None:
        """ "no beer in the last 30 days"."""
        if rest[0].text not in ("no", "without"):
            return None
        for n in range(2, min(len(rest), 5)):
            found = prefix(self._reader.window, rest[n:])
            if (
                found
                and isinstance(found[0], Window)
                and rest[n + 1].text in ("the", "last", "past")
            ):
                subject = self._reader.named(
                    rest, [k for k in range(1, n) if rest[k].text not in NOISE]
                )
                if subject is None:
                    return None
                rule = Not(Behaviour("bought", subject, found[0].days))
                return Clause((rule,), n + found[1])
        return None

    def _last_time(self, rest: list[Token], start: int) -> Clause | None:
        ago = word("was", "is").optional() >> parsy.seq(
            phrase("more than", "over", "at least"), number,
            word("days", "day").result(1) | word("weeks", "week").result(7)
            | word("months", "month").result(30),
        ).combine(lambda _, n, unit: n * unit) << phrase("ago", "back")  # fmt: skip
        for end in range(start, min(len(rest), start + 8)):
            found = prefix(ago, rest[end:])
            if found is None:
                continue
            where = [i for i in range(start, end) if rest[i].text not in NOISE]
            days, length = int(found[0]), end + found[1]
            subject = self._reader.named(rest, where) if where else None
            if where and subject is None:
                return Clause((), length, ((where[0], where[-1] + 1),), spoken(rest, where))
            if not 1 <= days:
                return Clause((), length, ((end, length),))
            ever = Behaviour("bought", subject)
            return Clause((ever, Not(replace(ever, days=days))), length)
        return None

    # --- meaning

    def _verb(self, verb: str, rest: list[Token], said: Said) -> str:
        """The verb of the rule; to visit a subject is to browse it, where pages are known."""
        if verb == "shopped" and "browsed" in self._verbs and said.named:
            if any(self._reader.named(rest, where) for _, where in said.named):
                return "browsed"
        return verb

    def _meant(
        self, rest: list[Token], end: int, denied: bool, verb: str, said: Said,
        antecedent: str | None, *, noun: bool = False,
    ) -> Clause:  # fmt: skip
        verb = self._verb(verb, rest, said)
        if [spoken(rest, where) for _, where in said.named] == ["nothing"]:
            denied, said.objects = not denied, []
        about = " ".join(spoken(rest, where) for _, where in said.named)
        rule_verb = "bought" if verb in ("spent", "shopped") else verb
        unread = list(said.vague) if said.is_vague else []
        if rule_verb not in self._verbs:
            unread.append((0, 1 + (rest[0].text in DENIALS)))
        subjects, notes = self._subjects(rest, said, verb, unread, antecedent, noun)
        if unread and not subjects or said.is_vague or rule_verb not in self._verbs:
            return Clause((), end, tuple(unread), about)
        days = said.window.days if isinstance(said.window, Window) else None
        rules = [
            (denied or deny, _behaviour(rule_verb, subject, days, said, verb))
            for deny, subject in subjects
        ]
        return Clause(_combined(rules, said.joined), end, tuple(unread), about, tuple(notes))

    def _subjects(
        self, rest: list[Token], said: Said, verb: str, unread: list[tuple[int, int]],
        antecedent: str | None, noun: bool,
    ) -> tuple[list[tuple[bool, str | None]], list[str]]:  # fmt: skip
        found: list[tuple[bool, str | None]] = []
        notes: list[str] = []
        for deny, where in said.named:
            pronouns = [i for i in where if rest[i].text in PRONOUNS]
            others = [i for i in where if i not in pronouns]
            if pronouns and others and verb == "bought":  # "something nice"
                unread.append((others[0], others[-1] + 1))
                found.append((deny, None))
            elif verb in ("redeemed", "shopped"):
                if others and verb == "redeemed":
                    unread.append((others[0], others[-1] + 1))
                found.append((deny, None))
            elif not others:
                about = antecedent if rest[where[0]].text in ("it", "them", "one") else None
                found.append((deny, about))
            else:
                subject = self._reader.named(rest, others)
                if subject is None:
                    unread.append((others[0], others[-1] + 1))
                    continue
                found.append((deny, subject))
                if subject.lower() != spoken(rest, others):
                    notes.append(f"“{spoken(rest, others)}” is read as {subject.lower()}.")
        if not said.named:
            bare = verb == "bought" and not noun and said.count is None and said.amount is None
            found.append((False, antecedent if bare else None))
        return found, notes

    def _never(
        self, verb: str, subject: str | None, said: object, where: tuple[int, int], length: int
    ) -> Clause:
        if not isinstance(said, Window):
            return Clause((), length, (where,))
        return Clause((Not(Behaviour("bought", subject, said.days)),), length)


def _no_such(rest: Sequence[Token]) -> int:
    """Length of "no diapers bought", or 0."""
    if rest[0].text != "no":
        return 0
    for n in range(2, min(5, len(rest))):
        if rest[n].text in ("bought", "purchased", "ordered"):
            return n + 1
        if rest[n - 1].kind != "word":
            break
    return 0


def _behaviour(
    verb: str, subject: str | None, days: int | None, said: Said, spoken: str
) -> Behaviour:
    if said.amount is not None:
        return Behaviour(verb, subject, days, "amount", said.amount.low, said.amount.high)
    if said.count is None:
        return Behaviour(verb, subject, days)
    low, high = said.count.whole()
    return Behaviour(verb, subject, days, "count", low, high)


def _combined(rules: list[tuple[bool, Behaviour]], joined: str) -> tuple[Rule, ...]:
    """Denied ones hold each for itself; "or" between the others asks for one of them."""
    wanted: list[Rule] = [rule for denied, rule in rules if not denied]
    unwanted: list[Rule] = [Not(rule) for denied, rule in rules if denied]
    if joined == "or" and len(wanted) > 1:
        wanted = [AnyOf(tuple(wanted))]
    return (*wanted, *unwanted)
